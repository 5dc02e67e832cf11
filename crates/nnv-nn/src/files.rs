// SPDX-License-Identifier: MPL-2.0
//! Opening files that anybody may have put there.

use std::fs::File;
use std::path::Path;

/// Opens a file for reading if it is one: a named pipe would wait for a writer, a device might
/// never end.
///
/// # Errors
/// Those of the system, and one for what is no regular file.
pub(crate) fn open_regular(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Without waiting for the other end of a pipe. For files it means nothing.
        options.custom_flags(libc::O_NONBLOCK);
    }
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::InvalidInput,
        "it is not a regular file",
    ))
}

/// As [`open_regular`] does, a file of a folder, which neither its name nor links may lead out of.
///
/// # Errors
/// Those of [`open_regular`], and one for what lies elsewhere.
pub(crate) fn open_inside(folder: &Path, name: &str) -> std::io::Result<File> {
    let path = folder.join(name);
    let file = open_regular(&path)?;
    if !path.canonicalize()?.starts_with(folder.canonicalize()?) {
        return Err(std::io::Error::new(
            std::io::ErrorKind::PermissionDenied,
            "it leads out of its folder; copy the file into it",
        ));
    }
    Ok(file)
}

#[cfg(all(test, unix))]
pub(crate) mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A folder that is removed when it goes out of scope.
    pub(crate) struct TempFolder(pub PathBuf);

    impl TempFolder {
        pub(crate) fn new(name: &str) -> Self {
            let id = std::process::id();
            let path = std::env::temp_dir().join(format!("nnv-nn-{id}-{name}"));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        /// A named pipe that nobody writes to.
        pub(crate) fn pipe(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            let status = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(status.unwrap().success(), "mkfifo");
            path
        }
    }

    impl Drop for TempFolder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_regular_files_inside_are_opened() {
        let folder = TempFolder::new("files");
        std::fs::write(folder.0.join("file"), b"content").unwrap();
        std::os::unix::fs::symlink("file", folder.0.join("inside")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.0.join("outside")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.0.join("device")).unwrap();
        folder.pipe("pipe");
        std::fs::create_dir(folder.0.join("folder")).unwrap();
        let error = |name: &str| open_inside(&folder.0, name).unwrap_err().to_string();
        open_inside(&folder.0, "file").unwrap();
        open_inside(&folder.0, "inside").unwrap();
        for name in ["pipe", "folder", "device"] {
            assert!(error(name).contains("not a regular file"), "{name}");
        }
        if Path::new("/etc/hostname").is_file() {
            for name in ["outside", "/etc/hostname"] {
                assert!(error(name).contains("out of its folder"), "{name}");
            }
        }
    }
}
