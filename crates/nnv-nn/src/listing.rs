// SPDX-License-Identifier: MPL-2.0
//! What is in a bundle, whatever its kind is, whole or not: for people who look into one.

use std::borrow::Cow;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::bundle::{EmbeddedBundle, all_embedded};
use crate::error::{NnError, Result};
use crate::{ModelSource, embedded, embedded_sr};

/// Largest file that is read: above the limits of those who load bundles.
const MAX_FILE: u64 = 1 << 30;

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of what it holds.
    pub sha256: [u8; 32],
}

/// `bundle.toml` as it stands, and the files beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleListing {
    /// The text of `bundle.toml`.
    pub manifest: String,
    /// All files, by name. Model cards are not built in.
    pub files: Vec<BundleFile>,
}

impl BundleListing {
    /// Reads all files of a bundle. Nothing is judged but that there is a `bundle.toml`.
    ///
    /// # Errors
    /// [`NnError::UnknownModel`], or [`NnError::Bundle`] where files cannot be read.
    pub fn read(source: &ModelSource) -> Result<Self> {
        let fail = |what: String| NnError::Bundle {
            bundle: source.label().into_owned(),
            what,
        };
        let files = match source {
            ModelSource::Embedded(name) => embedded_files(name)?,
            ModelSource::Folder(folder) => files_of(folder).map_err(fail)?,
            ModelSource::Memory(bundle) => {
                let files = bundle.files().clone().into_iter();
                files.map(|(name, bytes)| (name, bytes.into())).collect()
            }
        };
        let manifest = files
            .iter()
            .find(|(name, _)| name == "bundle.toml")
            .ok_or_else(|| fail("the file bundle.toml is missing: this is no bundle".into()))?;
        let manifest = std::str::from_utf8(&manifest.1)
            .map_err(|_| fail("bundle.toml is not UTF-8".into()))?
            .to_owned();
        let files = files
            .into_iter()
            .map(|(name, bytes)| BundleFile {
                name,
                bytes: bytes.len() as u64,
                sha256: Sha256::digest(&bytes).into(),
            })
            .collect();
        Ok(Self { manifest, files })
    }
}

type Files = Vec<(String, Cow<'static, [u8]>)>;

fn embedded_files(name: &str) -> Result<Files> {
    let bundle: &EmbeddedBundle = all_embedded()
        .find(|bundle| bundle.folder == name)
        .ok_or_else(|| {
            let names = embedded().into_iter().map(|b| b.name);
            let all: Vec<_> = names
                .chain(embedded_sr().into_iter().map(|b| b.name))
                .collect();
            NnError::UnknownModel {
                name: name.into(),
                known: all.join(", "),
            }
        })?;
    let files = bundle.files().iter();
    Ok(files
        .map(|&(name, bytes)| (name.to_owned(), Cow::Borrowed(bytes)))
        .collect())
}

fn files_of(folder: &Path) -> Result<Files, String> {
    let fail = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| fail(folder, e))? {
        let path = entry.map_err(|e| fail(folder, e))?.path();
        let metadata = path.metadata().map_err(|e| fail(&path, e))?;
        if !metadata.is_file() {
            continue;
        }
        if metadata.len() > MAX_FILE {
            return Err(format!("{}: larger than {MAX_FILE} bytes", path.display()));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = std::fs::read(&path).map_err(|e| fail(&path, e))?;
        files.push((name.into_owned(), Cow::Owned(bytes)));
    }
    files.sort();
    Ok(files)
}
