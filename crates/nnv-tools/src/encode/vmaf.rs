// SPDX-License-Identifier: MPL-2.0
//! VMAF: by libvmaf, or by an ffmpeg that has it, a program of its own.

use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::source::Video;
use crate::compare::Shown;
use crate::failure::{Failure, Result};

/// Names an ffmpeg in place of the library and of the one on PATH.
const VARIABLE: &str = "NNV_FFMPEG";

/// What measures VMAF.
#[derive(Clone, Debug)]
pub enum Judge {
    /// libvmaf, loaded into this program.
    Library,
    /// A program.
    Ffmpeg(Ffmpeg),
}

impl Judge {
    /// The ffmpeg that is named, else the library, else the ffmpeg on PATH.
    ///
    /// # Errors
    /// There is none: the message says what helps.
    pub fn find() -> Result<Self> {
        let named = std::env::var_os(VARIABLE).is_some_and(|name| !name.is_empty());
        if !named && library().is_ok() {
            return Ok(Self::Library);
        }
        Ffmpeg::find().map(Self::Ffmpeg)
    }
}

/// The default model of the library.
///
/// # Errors
/// There is no library.
pub fn library() -> std::result::Result<nnv_quality::Vmaf, nnv_quality::VmafError> {
    nnv_quality::Vmaf::new(nnv_quality::Vmaf::DEFAULT_MODEL)
}

/// A program that was asked whether it can.
#[derive(Clone, Debug)]
pub struct Ffmpeg(PathBuf);

impl Ffmpeg {
    /// Finds one.
    ///
    /// # Errors
    /// There is none, or it lacks libvmaf: the message says what helps.
    pub fn find() -> Result<Self> {
        let named = std::env::var_os(VARIABLE).filter(|name| !name.is_empty());
        let program = PathBuf::from(named.unwrap_or_else(|| "ffmpeg".into()));
        let remedy = format!(
            "VMAF needs libvmaf (nnv compare --metrics vmaf tells how to get it) or an ffmpeg \
             that has it: name one in {VARIABLE} (a current one is in the package imageio-ffmpeg \
             of PyPI), or take another measure, as in --target psnr=40"
        );
        let out = Command::new(&program)
            .args(["-hide_banner", "-filters"])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Failure::Input(format!("{}: {e}; {remedy}", program.display())))?;
        let filters = String::from_utf8_lossy(&out.stdout);
        if !filters.split_whitespace().any(|word| word == "libvmaf") {
            let what = format!("it has no filter libvmaf; {remedy}");
            return Err(Failure::file(&program, what));
        }
        Ok(Self(program))
    }
}

/// A measurement in progress.
pub struct Vmaf {
    child: Child,
    to: Option<BufWriter<ChildStdin>>,
    log: PathBuf,
}

impl Vmaf {
    /// Begins to compare frames to come with those of the file `raw` in `folder`.
    ///
    /// # Errors
    /// ffmpeg does not start.
    pub fn start(
        ffmpeg: &Ffmpeg,
        folder: &Path,
        raw: &str,
        video: &Video,
        threads: usize,
    ) -> Result<Self> {
        let log = format!("{raw}.json");
        let size = format!("{}x{}", video.width, video.height);
        let rate = format!("{}/{}", video.rate.0, video.rate.1);
        let format = match video.bit_depth {
            8 => "yuv420p",
            _ => "yuv420p10le",
        };
        let of_raw = [
            "-f", "rawvideo", "-pix_fmt", format, "-s", &size, "-r", &rate, "-i",
        ];
        let filter = format!("[0:v][1:v]libvmaf=log_fmt=json:log_path={log}:n_threads={threads}");
        let mut child = Command::new(&ffmpeg.0)
            .current_dir(folder)
            .args(["-v", "error", "-nostdin"])
            .args(of_raw)
            .arg("pipe:0")
            .args(of_raw)
            .arg(raw)
            .args(["-lavfi", &filter, "-f", "null", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::Input(format!("{}: {e}", ffmpeg.0.display())))?;
        let to = child.stdin.take();
        Ok(Self {
            child,
            to: to.map(|to| BufWriter::with_capacity(1 << 20, to)),
            log: folder.join(log),
        })
    }

    /// The next frame.
    ///
    /// # Errors
    /// ffmpeg has ended early.
    pub fn add(&mut self, frame: &Shown<'_>) -> Result<()> {
        let Some(to) = &mut self.to else {
            return Ok(());
        };
        match frame.write(to) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.why()),
        }
    }

    /// The mean over the frames.
    ///
    /// # Errors
    /// ffmpeg failed.
    pub fn finish(mut self) -> Result<f64> {
        let flushed = self.to.take().map(|mut to| to.flush());
        if !self.child.wait()?.success() || flushed.is_some_and(|done| done.is_err()) {
            return Err(self.why());
        }
        let text = std::fs::read(&self.log).map_err(|e| Failure::file(&self.log, e))?;
        let report: serde_json::Value = serde_json::from_slice(&text)?;
        let mean = report["pooled_metrics"]["vmaf"]["mean"].as_f64();
        mean.ok_or_else(|| Failure::Input("ffmpeg's libvmaf wrote no mean".into()))
    }

    /// What ffmpeg said.
    fn why(&mut self) -> Failure {
        drop(self.to.take());
        let mut said = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            let _ = errors.read_to_string(&mut said);
        }
        let line = said.lines().last().unwrap_or("it failed without a word");
        Failure::Input(format!("ffmpeg's libvmaf: {line}"))
    }
}

impl Drop for Vmaf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}
