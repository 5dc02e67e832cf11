// SPDX-License-Identifier: MPL-2.0
//! Names of files: those that are read must not be written, and how GStreamer's notation has them.

use std::path::Path;

use crate::failure::{Failure, Result};

/// That none of the outputs is one of the inputs, by whatever name.
///
/// # Errors
/// [`Failure::Usage`], before anything is written.
pub fn keep_apart<'a>(
    inputs: impl IntoIterator<Item = &'a Path>,
    outputs: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    let outputs: Vec<_> = outputs
        .into_iter()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    let same = |input: &&Path| input.canonicalize().is_ok_and(|i| outputs.contains(&i));
    match inputs.into_iter().find(same) {
        None => Ok(()),
        Some(input) => Err(Failure::Usage(format!(
            "{} is read from, it cannot be the output",
            input.display()
        ))),
    }
}

/// A file's name as the property `location` in gst-launch's notation, which takes backslashes and
/// quotes off.
///
/// # Errors
/// The name is not UTF-8, which properties have to be.
pub fn location(path: &Path) -> Result<String> {
    let name = path
        .to_str()
        .ok_or_else(|| Failure::file(path, "its name is not UTF-8"))?;
    let name = name.replace('\\', "\\\\").replace('"', "\\\"");
    // A value that begins with a quote would be taken for a quoted one.
    let here = if path.is_relative() { "./" } else { "" };
    Ok(format!("location=\"{here}{name}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_not_written_by_any_name() {
        let folder = std::env::temp_dir().join(format!("nnv-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (a, b, new) = (folder.join("a"), folder.join("b"), folder.join("new"));
        std::fs::write(&a, "a").unwrap();
        std::fs::write(&b, "b").unwrap();
        let detour = folder
            .join("../")
            .join(folder.file_name().unwrap())
            .join("a");
        assert!(keep_apart([&*a], [&*b, &*new]).is_ok());
        assert!(keep_apart([&*new], [&*new]).is_ok());
        for output in [&a, &detour] {
            let error = keep_apart([&*b, &*a], [&**output]).unwrap_err();
            assert!(matches!(error, Failure::Usage(_)), "{error:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_are_quoted() {
        let of = |name: &str| location(Path::new(name)).unwrap();
        assert_eq!(of("/a b.mp4"), r#"location="/a b.mp4""#);
        assert_eq!(of(r#""a\b.mp4"#), r#"location="./\"a\\b.mp4""#);
    }
}
