// SPDX-License-Identifier: MPL-2.0
//! Measures of each frame as CSV and JSON.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use nnv_nn::Judgement;
use nnv_quality::FrameQuality;

use super::judge;

/// A line of either file.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Counted from 0.
    pub frame: u64,
    /// Running time in ns.
    pub time: i64,
    /// Running time of the reference's frame in ns; `None`: there was none.
    pub reference: Option<i64>,
    /// The picture is the one before, while the reference's went on.
    pub frozen: bool,
    /// What was measured; `None` without a reference.
    pub quality: Option<FrameQuality>,
    /// What the network says; `None` with a reference.
    pub judgement: Option<Judgement>,
}

/// A file, and its name for messages.
struct Output {
    path: PathBuf,
    to: BufWriter<File>,
}

impl Output {
    fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|e| cannot_write(path, &e))?;
        Ok(Self {
            path: path.into(),
            to: BufWriter::new(file),
        })
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), String> {
        write(&mut self.to).map_err(|e| cannot_write(&self.path, &e))
    }
}

fn cannot_write(path: &Path, e: &io::Error) -> String {
    format!("Cannot write {}: {e}", path.display())
}

/// Both files, as far as they are asked for. Errors are one line that names the file.
#[derive(Default)]
pub struct Files {
    csv: Option<Output>,
    json: Option<Output>,
    rows: u64,
}

impl Files {
    /// Creates them.
    ///
    /// # Errors
    /// One cannot be made.
    pub fn create(csv: Option<&Path>, json: Option<&Path>) -> Result<Self, String> {
        let mut files = Self {
            csv: csv.map(Output::create).transpose()?,
            json: json.map(Output::create).transpose()?,
            rows: 0,
        };
        if let Some(csv) = &mut files.csv {
            csv.write(|to| {
                write!(to, "frame,running-time,reference-time,frozen")?;
                for name in FrameQuality::NAMES.into_iter().chain(judge::NAMES) {
                    write!(to, ",{name}")?;
                }
                writeln!(to)
            })?;
        }
        if let Some(json) = &mut files.json {
            json.write(|to| write!(to, "{{\"frames\": ["))?;
        }
        Ok(files)
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// Those of writing.
    pub fn add(&mut self, row: &Row) -> Result<(), String> {
        let measured = row.quality.map(|q| q.values()).unwrap_or_default();
        let judged = row.judgement.as_ref().map(judge::values);
        if let Some(csv) = &mut self.csv {
            csv.write(|to| {
                write!(to, "{},{},", row.frame, row.time)?;
                if let Some(time) = row.reference {
                    write!(to, "{time}")?;
                }
                write!(to, ",{}", u8::from(row.frozen))?;
                for value in measured.into_iter().chain(optional(judged)) {
                    match value {
                        Some(v) => write!(to, ",{v:.6}")?,
                        None => write!(to, ",")?,
                    }
                }
                writeln!(to)
            })?;
        }
        if let Some(json) = &mut self.json {
            let mut object = serde_json::Map::new();
            object.insert("frame".into(), row.frame.into());
            object.insert("running-time".into(), row.time.into());
            object.insert("reference-time".into(), row.reference.into());
            object.insert("frozen".into(), row.frozen.into());
            insert(&mut object, measured, judged);
            let comma = if self.rows == 0 { "\n" } else { ",\n" };
            let object = serde_json::Value::Object(object);
            json.write(|to| write!(to, "{comma}{object}"))?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Ends both with what was found of the whole.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(
        mut self,
        counts: &[(&str, u64)],
        mean: Option<&nnv_quality::Mean>,
        judged: Option<[f64; judge::NAMES.len()]>,
        vmaf_model: Option<&str>,
    ) -> Result<(), String> {
        if let Some(csv) = &mut self.csv {
            csv.write(BufWriter::flush)?;
        }
        if let Some(json) = &mut self.json {
            let mut summary = serde_json::Map::new();
            for (name, count) in counts {
                summary.insert((*name).into(), (*count).into());
            }
            let measured = mean.map(|m| m.values()).unwrap_or_default();
            insert(&mut summary, measured, judged);
            summary.insert("vmaf-model".into(), vmaf_model.into());
            let summary = serde_json::Value::Object(summary);
            json.write(|to| {
                writeln!(to, "\n], \"summary\": {summary}}}")?;
                to.flush()
            })?;
        }
        Ok(())
    }
}

/// Adds measures by name, and what was judged where it was. JSON knows no infinity: what has no
/// error is null, as what is not there.
fn insert(
    object: &mut serde_json::Map<String, serde_json::Value>,
    measured: [Option<f64>; FrameQuality::NAMES.len()],
    judged: Option<[f64; judge::NAMES.len()]>,
) {
    for (name, value) in FrameQuality::NAMES.into_iter().zip(measured) {
        object.insert(name.into(), value.into());
    }
    for (name, value) in judge::NAMES.into_iter().zip(judged.into_iter().flatten()) {
        object.insert(name.into(), value.into());
    }
}

fn optional<const N: usize>(values: Option<[f64; N]>) -> [Option<f64>; N] {
    values.map_or([None; N], |values| values.map(Some))
}
