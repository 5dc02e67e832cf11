// SPDX-License-Identifier: MPL-2.0
//! GStreamer in processes of its own: `nnv` links none of it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::files::{DECODE_PICTURES, location};

fn command(program: &str, folder: Option<&Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    command
}

fn missing(program: &str, error: &std::io::Error) -> Failure {
    let package = match program {
        "gst-discoverer-1.0" => "gstreamer1.0-plugins-base-apps",
        _ => "gstreamer1.0-tools",
    };
    Failure::Input(format!(
        "{program} does not start ({error}): install {package}"
    ))
}

fn run(program: &str, folder: Option<&Path>, arguments: &[&str]) -> Result<Output> {
    let mut command = command(program, folder, arguments);
    command.output().map_err(|e| missing(program, &e))
}

/// Whether there is an element of this name.
///
/// # Errors
/// GStreamer's tools are not installed.
pub fn exists(element: &str) -> Result<bool> {
    // Plugins that are not GStreamer's own have other versions.
    let words = ["--exists", "--atleast-version=0.0", element];
    Ok(run("gst-inspect-1.0", None, &words)?.status.success())
}

/// What stands for the source's name in a pipeline.
pub const SOURCE: &str = "filesrc-of-source";

/// Runs a pipeline in gst-launch's notation to its end. Its words may not contain spaces, so files
/// are named relative to `folder`; [`SOURCE`] reads from `source`, whatever its name is.
///
/// # Errors
/// What the pipeline says.
pub fn launch(folder: &Path, pipeline: &str, source: Option<&Path>) -> Result<()> {
    let location = source.map(location).transpose()?;
    // Without --no-fault it does not end where an element crashes.
    let mut arguments = vec!["-q", "--no-fault"];
    for word in pipeline.split_whitespace() {
        match &location {
            Some(location) if word == SOURCE => arguments.extend(["filesrc", location]),
            _ => arguments.push(word),
        }
    }
    let out = run("gst-launch-1.0", Some(folder), &arguments)?;
    let silent = format!("it ended without a word, {}", out.status);
    let said = [out.stderr, out.stdout].concat();
    let said = String::from_utf8_lossy(&said);
    let error = said
        .lines()
        .find(|line| line.contains("ERROR") || line.contains("erroneous pipeline"));
    match error {
        None if out.status.success() => Ok(()),
        error => Err(Failure::Input(format!(
            "GStreamer: {}",
            error.or(said.lines().last()).unwrap_or(&silent).trim()
        ))),
    }
}

/// How long a file may take to tell what its pictures are.
const PATIENCE: Duration = Duration::from_secs(60);

/// Caps of a file's pictures when decoded.
///
/// The pipeline is stopped as soon as it has told them.
///
/// # Errors
/// The pipeline cannot be run, does not tell, or says nothing for a minute.
pub fn picture_caps(file: &Path) -> Result<String> {
    let location = location(file)?;
    let mut arguments = vec!["-v", "--no-fault", "filesrc", &location, "!"];
    arguments.extend(DECODE_PICTURES);
    arguments.extend(["!", "fakesink", "sync=false"]);
    let mut child = command("gst-launch-1.0", None, &arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| missing("gst-launch-1.0", &e))?;
    let said = BufReader::new(child.stdout.take().expect("it is piped"));
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = said.lines().map_while(std::io::Result::ok);
        // Nobody listens any more where patience has ended.
        let _ = tell.send(lines.filter_map(|line| sink_caps(&line)).next());
    });
    let caps = told.recv_timeout(PATIENCE).ok().flatten();
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    caps.ok_or_else(|| {
        let why =
            "GStreamer does not tell what its pictures are; gst-discoverer-1.0 -v may say why";
        Failure::file(file, why)
    })
}

/// From a line such as `/GstPipeline:pipeline0/GstFakeSink:fakesink0.GstPad:sink: caps = …`.
fn sink_caps(line: &str) -> Option<String> {
    let (pad, caps) = line.split_once(": caps = ")?;
    pad.contains("GstFakeSink").then(|| caps.to_owned())
}

/// Caps of the sounds and subtitles of a file, in its order.
///
/// The discoverer waits until each track has told its caps. What a pipeline says depends on which
/// of its threads comes first.
///
/// # Errors
/// It is not installed.
pub fn tracks(file: &Path) -> Result<Vec<String>> {
    let file = file.display().to_string();
    let out = run("gst-discoverer-1.0", None, &["-v", &file])?;
    Ok(tracks_said(&String::from_utf8_lossy(&out.stdout)))
}

/// From lines such as `audio #2: audio/x-opus, rate=(int)48000`.
fn tracks_said(said: &str) -> Vec<String> {
    said.lines()
        .filter_map(|line| line.trim_start().split_once(": "))
        .filter(|(head, _)| head.starts_with("audio #") || head.starts_with("subtitles #"))
        .map(|(_, caps)| caps.to_owned())
        .collect()
}

/// A field of caps as gst-launch prints them, without its type.
pub fn field<'a>(caps: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = caps
        .split(", ")
        .filter_map(|field| field.split_once('='))
        .find(|(key, _)| *key == name)?;
    let value = value.split_once(')').map_or(value, |(_, value)| value);
    Some(value.trim_end_matches(';').trim_matches('"'))
}

/// A fraction as caps have it.
pub fn fraction(text: &str) -> Option<(u32, u32)> {
    let (n, d) = text.split_once('/')?;
    Some((n.parse().ok()?, d.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_are_told_from_the_rest() {
        let said = "  Tags: \n      audio codec: Opus\n  container #0: video/quicktime\n    \
                    video #1: video/x-h264, width=(int)96\n    \
                    audio #2: audio/x-opus, rate=(int)48000\n      Codec:\n        \
                    audio/x-opus, rate=(int)48000\n    subtitles #3: text/x-raw, format=utf8\n";
        let found = ["audio/x-opus, rate=(int)48000", "text/x-raw, format=utf8"];
        assert_eq!(tracks_said(said), found);
        assert!(tracks_said("").is_empty());
    }

    #[test]
    fn only_the_sink_tells_what_is_decoded() {
        let line = |pad: &str| {
            sink_caps(&format!(
                "/GstPipeline:pipeline0/{pad}: caps = video/x-raw, width=(int)8"
            ))
        };
        let sink = "GstFakeSink:fakesink0.GstPad:sink";
        assert_eq!(line(sink).as_deref(), Some("video/x-raw, width=(int)8"));
        assert_eq!(line("GstCapsFilter:capsfilter0.GstPad:src"), None);
        assert_eq!(sink_caps("Setting pipeline to PLAYING ..."), None);
    }

    #[test]
    fn caps_are_read() {
        let caps = "video/x-raw, format=(string)I420, colorimetry=(string)bt709, \
                    framerate=(fraction)30000/1001";
        assert_eq!(field(caps, "format"), Some("I420"));
        assert_eq!(
            field(caps, "framerate").and_then(fraction),
            Some((30000, 1001))
        );
        assert_eq!(field(caps, "width"), None);
    }
}
