// SPDX-License-Identifier: MPL-2.0
//! The folder of what is in work, beside the output: a run that was killed is found by it.

use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::plan::Plan;
use super::report::Shot;
use crate::failure::{Failure, Result};

/// Digits of the hash in the folder's name.
const DIGITS: usize = 16;
const PLAN: &str = "plan.json";

/// Files of one source, coded by one set of settings.
pub struct Folder(PathBuf);

fn hash(source: &Path, settings: &str) -> Result<String> {
    let fail = |e: std::io::Error| Failure::file(source, e);
    let mut file = std::fs::File::open(source).map_err(fail)?;
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(fail)? {
            0 => break,
            n => digest.update(&block[..n]),
        }
    }
    digest.update(settings.as_bytes());
    let digest: [u8; 32] = digest.finalize().into();
    Ok(nnv_nn::hex(&digest)[..DIGITS].to_owned())
}

/// Writes a file that appears under its name only when it is whole.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, bytes).map_err(|e| Failure::file(&part, e))?;
    std::fs::rename(&part, path).map_err(|e| Failure::file(path, e))
}

impl Folder {
    /// Finds or makes it.
    ///
    /// # Errors
    /// The source cannot be read, or the output's folder not be written.
    pub fn open(source: &Path, output: &Path, settings: &str) -> Result<Self> {
        let name = output
            .file_name()
            .ok_or_else(|| Failure::Usage(format!("{} is no name of a file", output.display())))?;
        let hash = hash(source, settings)?;
        let path = output.with_file_name(format!(".{}.{hash}.nnv-work", name.to_string_lossy()));
        std::fs::create_dir_all(&path).map_err(|e| Failure::file(&path, e))?;
        // What a killed run had in work.
        for entry in std::fs::read_dir(&path)?.flatten() {
            let name = entry.file_name();
            let ending = Path::new(&name).extension().unwrap_or_default();
            if ending == "raw" || ending == "part" {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The plan of an earlier run.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn plan(&self) -> Result<Option<Plan>> {
        self.read(PLAN)
    }

    /// Keeps a plan.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_plan(&self, plan: &Plan) -> Result<()> {
        self.keep(PLAN, plan)
    }

    /// Keeps something.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, name: &str, what: &impl serde::Serialize) -> Result<()> {
        write_whole(&self.0.join(name), &serde_json::to_vec(what)?)
    }

    /// What was kept.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.0.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                let what = format!("{e}; remove {} to begin anew", self.0.display());
                Failure::file(&path, what)
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Failure::file(&path, e)),
        }
    }

    /// Name of a shot's files, without their ending.
    pub fn name(index: usize) -> String {
        format!("shot{index:06}")
    }

    /// What became of a shot, once it is finished.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn shot(&self, index: usize) -> Result<Option<Shot>> {
        self.read(&format!("{}.json", Self::name(index)))
    }

    /// Keeps what became of a shot: from now on it is finished.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_shot(&self, index: usize, shot: &Shot) -> Result<()> {
        self.keep(&format!("{}.json", Self::name(index)), shot)
    }

    /// How many shots are finished.
    pub fn finished(&self) -> usize {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        names
            .filter(|name| {
                let name = name.to_string_lossy();
                name.starts_with("shot") && name.ends_with(".json") && !name.contains(".raw")
            })
            .count()
    }

    /// Names of the coded shots' files.
    pub fn shots(&self, count: usize, ending: &str) -> Vec<String> {
        (0..count)
            .map(|i| format!("{}.{ending}", Self::name(i)))
            .collect()
    }

    /// Removes it, when all is done.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.0).map_err(|e| Failure::file(&self.0, e))
    }
}
