// SPDX-License-Identifier: MPL-2.0
//! Names of files: those that are written can be and are not read from, and how GStreamer's
//! notation has them.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

use crate::failure::{Failure, Result};

/// That none of the outputs is one of the inputs, by whatever name, and that each can be written.
/// Called before the work whose result goes there.
///
/// # Errors
/// [`Failure::Usage`] for an output that is an input; what keeps another from being written, and
/// what to do. Nothing was written then, and no folder made.
pub fn check_outputs<'a>(
    inputs: impl IntoIterator<Item = &'a Path>,
    outputs: impl IntoIterator<Item = &'a Path>,
) -> Result<()> {
    let outputs: Vec<_> = outputs.into_iter().collect();
    let known: Vec<_> = outputs
        .iter()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    let same = |input: &&Path| input.canonicalize().is_ok_and(|i| known.contains(&i));
    match inputs.into_iter().find(same) {
        None => outputs.into_iter().try_for_each(check_writable),
        Some(input) => Err(Failure::Usage(format!(
            "{} is read from, it cannot be the output",
            input.display()
        ))),
    }
}

/// That a file can be written. What is there stays as it is.
fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        let what = "it is a folder: add the name of a file";
        return Err(Failure::file(path, what));
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.exists() {
        let what = format!(
            "the folder {0} is not there: mkdir -p {0}",
            folder.display()
        );
        return Err(Failure::file(path, what));
    }
    if !folder.is_dir() {
        let what = format!("{} is no folder: name another place", folder.display());
        return Err(Failure::file(path, what));
    }
    let mut options = OpenOptions::new();
    options.write(true);
    let opened = match path.metadata() {
        // Whoever reads a pipe would take it for the end.
        Ok(metadata) if !metadata.is_file() => Ok(()),
        Ok(_) => options.open(path).map(drop),
        Err(_) => match options.create_new(true).open(path) {
            Ok(file) => {
                drop(file);
                std::fs::remove_file(path)
            }
            // A link to what is not there yet, or another process has just made it.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
        },
    };
    opened.map_err(|e| {
        let what = format!("it cannot be written ({e}): name another place");
        Failure::file(path, what)
    })
}

/// What decodes the pictures of a file, in gst-launch's notation: the first stream of them, and
/// nothing else. Where decodebin shows sound and subtitles that nothing takes, about one in a
/// hundred pipelines of a busy machine stands still or ends without pictures (GStreamer 1.22).
pub const DECODE_PICTURES: [&str; 3] = [
    "decodebin",
    "expose-all-streams=false",
    "caps=video/x-raw(ANY)",
];

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
        assert!(check_outputs([&*a], [&*b, &*new]).is_ok());
        assert!(check_outputs([&*new], [&*new]).is_ok());
        for output in [&a, &detour] {
            let error = check_outputs([&*b, &*a], [&**output]).unwrap_err();
            assert!(matches!(error, Failure::Usage(_)), "{error:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_told_and_nothing_changes() {
        let folder = std::env::temp_dir().join(format!("nnv-outputs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let old = folder.join("old");
        std::fs::write(&old, "as it was").unwrap();
        let check = |path: &Path| check_outputs([], [path]);
        for path in [&*old, &folder.join("new"), Path::new("new-beside-us")] {
            assert!(check(path).is_ok(), "{path:?}");
        }
        for (path, expected) in [
            (
                folder.join("none/there/new"),
                "none/there is not there: mkdir",
            ),
            (folder.clone(), "a folder: add"),
            (old.join("new"), "old is no folder"),
        ] {
            let Failure::Input(what) = check(&path).unwrap_err() else {
                panic!("{path:?}");
            };
            assert!(what.contains(expected), "{what}");
            assert!(what.starts_with(path.to_str().unwrap()), "{what}");
        }
        // Nobody makes files there, whoever they are.
        #[cfg(target_os = "linux")]
        assert!(check(Path::new("/proc/nnv.json")).is_err());
        #[cfg(unix)]
        assert!(check(Path::new("/dev/null")).is_ok());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "as it was");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        assert!(!Path::new("new-beside-us").exists());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_are_quoted() {
        let of = |name: &str| location(Path::new(name)).unwrap();
        assert_eq!(of("/a b.mp4"), r#"location="/a b.mp4""#);
        assert_eq!(of(r#""a\b.mp4"#), r#"location="./\"a\\b.mp4""#);
    }
}
