// SPDX-License-Identifier: MPL-2.0
//! Pictures of any file: streams and YUV4MPEG2 are read here, all else by GStreamer in a process
//! of its own.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;

use nnv_bitstream::{BitstreamError, StreamInfo, UnitType};
use nnv_codec::config::DecoderConfig;
use nnv_codec::decode::{Decoded, DecodedFrame, Decoder, Wanted};
use nnv_codec::error::CodecError;
use nnv_format::picture::Picture;
use nnv_nn::{ModelSource, RuntimeOptions};

use crate::failure::{Failure, Result};
use crate::files::{DECODE_PICTURES, location};
use crate::models;
use crate::stream::{Content, Depth, Piece, Stream};
use crate::y4m;

/// How streams are decoded.
#[derive(Clone, Debug, Default)]
pub struct Decoding {
    /// A bundle in place of the one that the stream asks for.
    pub model: Option<ModelSource>,
    /// 0: as many as there are processors.
    pub threads: u32,
    /// Where GStreamer reads: frames are repeated and left out until their times are even.
    pub even_times: bool,
}

/// A picture, and what is known of it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// As shown: cropped.
    pub picture: Arc<Picture>,
    /// 8 or 10.
    pub bit_depth: u8,
    /// Code of the matrix (ISO/IEC 23091-2), 2 where unknown.
    pub matrix: u8,
    /// Samples from 0 on, not from 16.
    pub full_range: bool,
    /// Lost or damaged, and replaced by the nearest picture.
    pub concealed: bool,
}

/// The pictures of a file in order of presentation.
pub struct Frames(Source);

enum Source {
    Y4m(y4m::Reader<BufReader<File>>),
    Piped(Piped),
    Stream(Box<Native>),
}

impl Frame {
    /// As it is shown.
    fn of(frame: &DecodedFrame) -> Result<Self> {
        Ok(Self {
            picture: cropped(&frame.picture, &frame.info)?,
            bit_depth: frame.info.bit_depth,
            matrix: frame.info.colorimetry.matrix,
            full_range: frame.info.colorimetry.range == nnv_bitstream::VideoRange::Full,
            concealed: frame.concealed,
        })
    }
}

impl Frames {
    /// Opens a file. What it is, its first bytes say.
    ///
    /// # Errors
    /// It cannot be read, or nothing here can read it.
    pub fn open(path: &Path, decoding: &Decoding) -> Result<Self> {
        let fail = |e: std::io::Error| Failure::file(path, e);
        let mut file = File::open(path).map_err(fail)?;
        if file.metadata().map_err(fail)?.is_dir() {
            return Err(Failure::file(path, "it is a folder"));
        }
        let mut head = Vec::new();
        file.by_ref().take(9).read_to_end(&mut head).map_err(fail)?;
        if head.is_empty() {
            return Err(Failure::file(path, "the file is empty"));
        }
        let named_nnv = path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("nnv"));
        let source = if head == y4m::MAGIC {
            let again = File::open(path).map_err(fail)?;
            Source::Y4m(y4m::Reader::new(
                path,
                BufReader::with_capacity(1 << 20, again),
            )?)
        } else if named_nnv || head.starts_with(&nnv_bitstream::unit::START_CODE) {
            Source::Stream(Box::new(Native::open(path, decoding)?))
        } else {
            Source::Piped(Piped::open(path, decoding.even_times)?)
        };
        Ok(Self(source))
    }

    /// Pictures that leave a pipeline in gst-launch's notation, run in `folder`, with 8 bits.
    /// Errors name `path`.
    ///
    /// # Errors
    /// It does not start, or says what is wrong before its first picture.
    pub fn of_pipeline(folder: &Path, pipeline: &str, path: &Path) -> Result<Self> {
        let mut command = Command::new("gst-launch-1.0");
        command.current_dir(folder).args(["-q", "--no-fault"]);
        command.args(pipeline.split_whitespace());
        Ok(Self(Source::Piped(Piped::start(path, command)?)))
    }

    /// The next picture; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read on, or decoding fails for good.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        let plain = |picture, bit_depth| Frame {
            picture,
            bit_depth,
            matrix: 2,
            full_range: false,
            concealed: false,
        };
        Ok(match &mut self.0 {
            Source::Y4m(reader) => {
                let depth = reader.bit_depth;
                reader.frame()?.map(|picture| plain(picture, depth))
            }
            Source::Piped(piped) => piped.next()?.map(|picture| plain(picture, 8)),
            Source::Stream(native) => native.next()?.map(|coded| coded.shown),
        })
    }

    /// Whether GStreamer reads them.
    pub fn is_piped(&self) -> bool {
        matches!(self.0, Source::Piped(_))
    }

    /// Frames per second, as far as known by now.
    pub fn rate(&self) -> Option<(u32, u32)> {
        match &self.0 {
            Source::Y4m(reader) => Some(reader.rate),
            Source::Piped(piped) => Some(piped.reader.rate),
            Source::Stream(native) => native.decoder.info().and_then(|info| info.frame_rate),
        }
    }
}

/// A frame of a stream: as it is shown, and how it was coded.
#[derive(Debug)]
pub struct Coded {
    /// The picture.
    pub shown: Frame,
    /// All that the decoder says.
    pub frame: DecodedFrame,
    /// Length of its access unit.
    pub bytes: u64,
}

/// A stream with a decoder of its own.
pub struct Native {
    path: PathBuf,
    stream: Stream,
    decoder: Decoder,
    /// Bytes of the access unit in progress.
    unit: Vec<u8>,
    sent: u64,
    /// Lengths of the access units whose frames are still to come, by number.
    lengths: BTreeMap<u64, u64>,
    ready: VecDeque<Coded>,
    ended: bool,
    lost: u64,
}

impl Native {
    /// Opens a stream.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(path: &Path, decoding: &Decoding) -> Result<Self> {
        let options = RuntimeOptions {
            threads: decoding.threads as usize,
            ..RuntimeOptions::default()
        };
        let models = models::of_stream(decoding.model.clone(), options);
        let config = DecoderConfig {
            threads: decoding.threads,
            live: false,
            ..DecoderConfig::default()
        };
        Ok(Self {
            path: path.into(),
            stream: Stream::open(path, Depth::All)?,
            decoder: Decoder::new(models, config),
            unit: Vec::new(),
            sent: 0,
            lengths: BTreeMap::new(),
            ready: VecDeque::new(),
            ended: false,
            lost: 0,
        })
    }

    /// Says what [`DecodedFrame::analysis`] is to hold.
    pub fn set_analysis(&mut self, wanted: Wanted) {
        self.decoder.set_analysis(Some(wanted));
    }

    /// Name of the bundle in use, once a sequence header was read.
    pub fn bundle(&self) -> Option<&str> {
        self.decoder.model().map(|model| model.name())
    }

    /// Frames so far that could not be shown.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The next frame in order of presentation; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read on, or decoding fails for good.
    pub fn next(&mut self) -> Result<Option<Coded>> {
        while self.ready.is_empty() && !self.ended {
            let at = |path: &Path, e: CodecError| Failure::file(path, e);
            match self.stream.next()? {
                None => {
                    self.decoder.finish().map_err(|e| at(&self.path, e))?;
                    self.ended = true;
                }
                // What stood before damage has lost its frame.
                Some(Piece::Damage { .. }) => self.unit.clear(),
                Some(Piece::Unit(unit)) => {
                    if let Content::Sequence(Err(what)) = &unit.content {
                        return Err(Failure::file(
                            &self.path,
                            format!("offset {}: {what}", unit.offset),
                        ));
                    }
                    if unit.kind.is_critical() {
                        let error = BitstreamError::Critical(unit.kind.code());
                        return Err(Failure::file(
                            &self.path,
                            format!("offset {}: {error}", unit.offset),
                        ));
                    }
                    if unit.kind == UnitType::Sequence {
                        self.unit.clear();
                    }
                    if unit.kind == UnitType::Sequence || unit.kind.is_frame() {
                        self.unit
                            .extend(self.stream.bytes_of(unit.offset, unit.len)?);
                    }
                    if unit.kind.is_frame() {
                        let sent = self.decoder.send(&self.unit, self.sent);
                        sent.map_err(|e| at(&self.path, e))?;
                        self.lengths.insert(self.sent, self.unit.len() as u64);
                        self.unit.clear();
                        self.sent += 1;
                    }
                }
            }
            while let Some(decoded) = self.decoder.receive() {
                match decoded {
                    Decoded::Frame(frame) => {
                        let bytes = self.lengths.remove(&frame.id).unwrap_or(0);
                        self.ready.push_back(Coded {
                            shown: Frame::of(&frame)?,
                            frame,
                            bytes,
                        });
                    }
                    Decoded::Dropped { id, .. } | Decoded::Skipped { id } => {
                        self.lengths.remove(&id);
                        self.lost += 1;
                    }
                }
            }
        }
        Ok(self.ready.pop_front())
    }
}

/// What is shown of a picture.
///
/// # Errors
/// The part that is cut off is larger than the picture.
pub fn cropped(picture: &Arc<Picture>, info: &StreamInfo) -> Result<Arc<Picture>> {
    let c = info.crop;
    if c == nnv_bitstream::Crop::default() {
        return Ok(picture.clone());
    }
    let (w, h) = (
        info.width - c.left - c.right,
        info.height - c.top - c.bottom,
    );
    Ok(Arc::new(picture.cropped(c.left, c.top, w, h)?))
}

/// Another process that decodes.
struct Piped {
    path: PathBuf,
    child: Child,
    /// Gathers what it says.
    said: Option<JoinHandle<String>>,
    reader: y4m::Reader<BufReader<ChildStdout>>,
}

impl Piped {
    fn open(path: &Path, even_times: bool) -> Result<Self> {
        let mut command = Command::new("gst-launch-1.0");
        command
            // Without --no-fault it does not end where an element crashes.
            .args(["-q", "--no-fault", "filesrc"])
            .arg(location(path)?)
            .arg("!")
            .args(DECODE_PICTURES)
            .args(["!", "videoconvert", "!", "video/x-raw,format=I420"]);
        if even_times {
            command.args(["!", "videorate"]);
        }
        Self::start(path, command)
    }

    /// Runs a pipeline whose last pad gives pictures.
    fn start(path: &Path, mut command: Command) -> Result<Self> {
        let mut child = command
            // y4menc (GStreamer 1.22) asks for padded planes and writes the padding.
            .args(["!", "identity", "drop-allocation=true"])
            .args(["!", "y4menc", "!", "fdsink", "fd=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| {
                Failure::file(
                    path,
                    format!(
                        "neither an NNV stream nor YUV4MPEG2, and gst-launch-1.0, which might read \
                         it, does not start: {e}"
                    ),
                )
            })?;
        let no_pipe = || Failure::file(path, "no pipe to gst-launch-1.0");
        let from = child.stdout.take().ok_or_else(no_pipe)?;
        let errors = child.stderr.take().ok_or_else(no_pipe)?;
        let mut said = Some(std::thread::spawn(move || listen(errors)));
        match y4m::Reader::of_gstreamer(path, BufReader::with_capacity(1 << 20, from)) {
            Ok(reader) => Ok(Self {
                path: path.into(),
                child,
                said,
                reader,
            }),
            Err(e) => Err(why(path, e, &mut child, &mut said)),
        }
    }

    fn next(&mut self) -> Result<Option<Arc<Picture>>> {
        let failure = match self.reader.frame() {
            Ok(Some(picture)) => return Ok(Some(picture)),
            Ok(None) if self.child.wait()?.success() => return Ok(None),
            Ok(None) => Failure::file(&self.path, "gst-launch-1.0 failed within it"),
            Err(e) => e,
        };
        Err(why(&self.path, failure, &mut self.child, &mut self.said))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // It has ended, or nobody wants the rest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first words of a process; the rest is read and dropped, so that it never waits for us.
fn listen(mut from: ChildStderr) -> String {
    let mut said = Vec::new();
    let _ = from.by_ref().take(1 << 16).read_to_end(&mut said);
    let _ = std::io::copy(&mut from, &mut std::io::sink());
    String::from_utf8_lossy(&said).into_owned()
}

/// The kind of stream from a line such as `Missing decoder: Vorbis (audio/x-vorbis, rate=(int)8)`.
fn undecoded(line: &str) -> Option<String> {
    let kind = line.strip_prefix("Missing decoder: ")?.split(',').next()?;
    Some(format!("{})", kind.trim_end_matches(')')))
}

/// Ends a process that failed: its first error, or `otherwise` where it said nothing.
fn why(
    path: &Path,
    otherwise: Failure,
    child: &mut Child,
    said: &mut Option<JoinHandle<String>>,
) -> Failure {
    let _ = child.kill();
    let _ = child.wait();
    let said = said
        .take()
        .and_then(|said| said.join().ok())
        .unwrap_or_default();
    let strangers: Vec<_> = said.lines().filter_map(undecoded).collect();
    if !strangers.is_empty() {
        let what = strangers.join(", ");
        let text = format!("no pictures that GStreamer can decode here; it holds {what}");
        return Failure::file(path, text);
    }
    let mut lines = said.lines();
    match lines.find(|line| line.contains("ERROR") || line.contains("WARNING")) {
        None => otherwise,
        Some(line) => Failure::file(
            path,
            format!("neither an NNV stream nor YUV4MPEG2, and GStreamer cannot read it: {line}"),
        ),
    }
}
