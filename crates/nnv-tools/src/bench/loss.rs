// SPDX-License-Identifier: MPL-2.0
//! Sends a clip over a link that loses packets, in virtual time, and prints what a viewer sees.
//!
//! Packets, reports and the order of events are those of `rtpnnvpay`, a jitter buffer and
//! `rtpnnvdepay`; coding takes no time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use nnv_bitstream::rtp::{Depacketizer, Packetizer, Received};
use nnv_bitstream::{BundleHash, StreamInfo};
use nnv_codec::config::{DecoderConfig, EncoderConfig, ErrorResilience, Tune};
use nnv_codec::decode::{Decoded, Decoder};
use nnv_codec::encode::{Encoder, InputFrame, LossReport};
use nnv_format::picture::Picture;
use nnv_nn::{Model, RuntimeOptions};

use crate::failure::{Failure, Result};
use crate::{models, y4m};

/// Longest payload of a packet in bytes.
const PAYLOAD: usize = 1188;
/// Longest access unit in bytes.
const LONGEST: usize = 64 << 20;

/// Sends a clip over a link that loses packets; prints what a viewer sees
#[derive(Args, Debug)]
pub struct Options {
    /// The clip
    #[arg(value_name = "CLIP.y4m")]
    clip: PathBuf,
    /// Share of packets that are lost, in per cent, reports included
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    loss: f64,
    /// Time there and back in ms
    #[arg(long, value_name = "MS", default_value_t = 40.0)]
    rtt: f64,
    /// How long the jitter buffer waits for a packet in ms
    #[arg(long, value_name = "MS", default_value_t = 200.0)]
    latency: f64,
    /// Quantizer
    #[arg(long, value_name = "N", default_value_t = 34)]
    q: u8,
    /// Frames; the clip runs forth and back until there are so many
    #[arg(long, value_name = "N", default_value_t = 150)]
    frames: usize,
    /// Begin of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Bundle
    #[arg(long, value_name = "NAME|FOLDER", default_value = "realtime")]
    model: String,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: u32,
    /// Ways to send
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "blind,key,ltr,rtx"
    )]
    ways: Vec<Way>,
}

/// How sender and receiver deal with losses.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As rtpgstpay over plain UDP: nobody hears of a loss
    Blind,
    /// Key frames are asked for, as rtpgstpay and rtpnnvpay do with PLI
    Key,
    /// error-resilience=ltr, losses are reported by NACK
    Ltr,
    /// Lost packets are sent again; what comes too late is answered as with ltr
    Rtx,
}

#[derive(Clone, Copy, Debug)]
enum Feedback {
    Loss(LossReport),
    Key,
}

struct Link {
    state: u64,
    loss: f64,
}

impl Link {
    /// Whether a packet is lost.
    fn loses(&mut self) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((self.state >> 11) as f64) < self.loss * (1u64 << 53) as f64
    }
}

/// A frame on its way.
struct Sent {
    group: u8,
    number: u32,
    /// Sequence number of its first packet.
    first: u16,
    packets: Vec<Vec<u8>>,
    /// Whether each packet is there in time.
    there: Vec<bool>,
}

#[derive(Default)]
struct Sums {
    bytes: usize,
    keys: (usize, usize),
    recoveries: (usize, usize),
    exact: usize,
    concealed: usize,
    missing: usize,
    psnr: f64,
    /// Of concealed frames: as shown, and had the last exact picture been shown.
    continued: (f64, f64),
    /// Frames without a new picture, and without an exact one, in a row.
    still: usize,
    longest_still: usize,
    wrong: usize,
    longest_wrong: usize,
    bursts: usize,
}

pub fn run(options: &Options) -> Result<()> {
    let file = std::fs::File::open(&options.clip).map_err(|e| Failure::file(&options.clip, e))?;
    let mut reader = y4m::Reader::new(&options.clip, std::io::BufReader::new(file))?;
    let mut clip = Vec::new();
    while clip.len() < options.frames
        && let Some(picture) = reader.frame()?
    {
        clip.push(picture);
    }
    if clip.is_empty() {
        return Err(Failure::Input("the clip has no frames".into()));
    }
    let rate = reader.rate;
    let mut info = StreamInfo::new(clip[0].width(), clip[0].height(), reader.bit_depth);
    info.frame_rate = Some(rate);
    let runtime = RuntimeOptions {
        threads: options.threads as usize,
        ..RuntimeOptions::default()
    };
    let model = Model::load(&models::source(&options.model), &runtime)?;
    println!(
        "{}x{}, {} frames, loss {} %, RTT {} ms, jitter buffer {} ms",
        info.width, info.height, options.frames, options.loss, options.rtt, options.latency
    );
    println!(
        "way    kbit/s  exact concealed missing  PSNR-YUV  longest still  longest wrong  \
         mean wrong  keys (bytes)  recoveries (bytes)  concealed dB (repeated)"
    );
    for &way in &options.ways {
        let sums = send(options, way, &clip, &info, &model)?;
        print(way, &sums, options.frames, rate);
    }
    Ok(())
}

fn print(way: Way, s: &Sums, frames: usize, rate: (u32, u32)) {
    let frame_ms = 1000.0 * f64::from(rate.1) / f64::from(rate.0);
    let mean = |(count, bytes): (usize, usize)| bytes / count.max(1);
    let wrong = (frames - s.exact) as f64 / s.bursts.max(1) as f64;
    let concealed = s.concealed.max(1) as f64;
    println!(
        "{:6} {:6.0} {:6} {:9} {:7}  {:8.2}  {:10.0} ms  {:10.0} ms  {:7.0} ms  {:4} ({:6})  \
         {:10} ({:6})  {:.2} ({:.2})",
        format!("{way:?}").to_lowercase(),
        s.bytes as f64 * 8.0 / (frames as f64 * frame_ms),
        s.exact,
        s.concealed,
        s.missing,
        s.psnr / frames as f64,
        s.longest_still as f64 * frame_ms,
        s.longest_wrong as f64 * frame_ms,
        wrong * frame_ms,
        s.keys.0,
        mean(s.keys),
        s.recoveries.0,
        mean(s.recoveries),
        s.continued.0 / concealed,
        s.continued.1 / concealed,
    );
}

/// The clip's picture number `t`, forth and back.
fn picture(clip: &[Arc<Picture>], t: usize) -> &Arc<Picture> {
    let period = (2 * clip.len()).saturating_sub(2).max(1);
    let t = t % period;
    &clip[t.min(period - t)]
}

fn send(
    options: &Options,
    way: Way,
    clip: &[Arc<Picture>],
    info: &StreamInfo,
    model: &Arc<Model>,
) -> Result<Sums> {
    let mut config = EncoderConfig::new(info.clone());
    config.tune = Tune::ZeroLatency;
    config.quantizer = options.q;
    config.key_int_max = 0;
    config.threads = options.threads;
    config.scene_cut = false;
    let ltr = matches!(way, Way::Ltr | Way::Rtx);
    if ltr {
        config.error_resilience = ErrorResilience::Ltr;
    }
    let mut encoder = Encoder::new(model.clone(), config)?;
    let provided = model.clone();
    let decoder_config = DecoderConfig {
        threads: options.threads,
        ..DecoderConfig::default()
    };
    let provider = move |_: &str, _: &BundleHash| Ok(provided.clone());
    let mut decoder = Decoder::new(provider, decoder_config);
    let (mut packetizer, mut depacketizer) = (Packetizer::default(), Depacketizer::new(LONGEST));
    let frame_ms = 1000.0 * f64::from(info.frame_rate.map_or(1, |r| r.1))
        / f64::from(info.frame_rate.map_or(30, |r| r.0));
    let half = options.rtt / 2.0;
    let mut link = Link {
        state: options.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        loss: options.loss / 100.0,
    };
    let mut sums = Sums::default();
    let mut air: VecDeque<(f64, usize, Sent)> = VecDeque::new();
    let mut feedback: Vec<(f64, Feedback)> = Vec::new();
    let (mut seqnum, mut shown) = (0u16, Screen::default());
    let end = options.frames + (options.latency / frame_ms) as usize + 3;
    for t in 0..end {
        let now = t as f64 * frame_ms;
        while air.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((due, index, sent)) = air.pop_front() else {
                break;
            };
            let said = receive(&mut depacketizer, &mut decoder, index, &sent)?;
            shown.show(picture(clip, index), said.picture, &mut sums);
            for what in said.feedback {
                if way != Way::Blind && !link.loses() {
                    feedback.push((due + half, what));
                }
            }
        }
        if t >= options.frames {
            continue;
        }
        let mut force_key = false;
        for (_, what) in feedback.extract_if(.., |(at, _)| *at <= now) {
            match what {
                Feedback::Loss(report) if ltr => encoder.report(report),
                Feedback::Loss(LossReport::Unknown) | Feedback::Key => force_key = true,
                Feedback::Loss(_) => {}
            }
        }
        encoder.send(InputFrame {
            force_key,
            ..InputFrame::new(picture(clip, t).clone(), t as u64)
        })?;
        let Some(unit) = encoder.receive()? else {
            return Err(Failure::Input(format!("frame {t} was not coded at once")));
        };
        sums.bytes += unit.data.len();
        let kind = match (unit.key, unit.recovery) {
            (true, _) if t > 0 => Some(&mut sums.keys),
            (false, true) => Some(&mut sums.recoveries),
            _ => None,
        };
        if let Some((count, bytes)) = kind {
            *count += 1;
            *bytes += unit.data.len();
        }
        let packets = packetizer.packets(&unit.data, PAYLOAD)?;
        let (group, number) = packetizer.last_frame().unwrap_or_default();
        let due = now + half + options.latency;
        let mut there: Vec<bool> = packets.iter().map(|_| t == 0 || !link.loses()).collect();
        for i in 0..there.len() {
            if there[i] || !ltr {
                continue;
            }
            // The next packet that comes shows the gap.
            let same = there[i + 1..].iter().any(|&b| b);
            let mut seen = now + half + if same { 0.0 } else { frame_ms };
            while seen + options.rtt <= due {
                let heard = !link.loses();
                if heard && way == Way::Rtx && !link.loses() {
                    there[i] = true;
                    break;
                }
                if heard && way == Way::Ltr {
                    let report = LossReport::Frame { group, number };
                    feedback.push((seen + half, Feedback::Loss(report)));
                    break;
                }
                seen += options.rtt;
            }
        }
        let sent = Sent {
            group,
            number,
            first: seqnum,
            there,
            packets,
        };
        seqnum = seqnum.wrapping_add(sent.packets.len() as u16);
        air.push_back((due, t, sent));
    }
    Ok(sums)
}

/// What became of a frame at the receiver.
struct Said {
    /// The picture, and whether it is what the encoder saw; none where nothing came.
    picture: Option<(Arc<Picture>, bool)>,
    feedback: Vec<Feedback>,
}

fn receive(
    depacketizer: &mut Depacketizer,
    decoder: &mut Decoder,
    index: usize,
    sent: &Sent,
) -> Result<Said> {
    let mut said = Said {
        picture: None,
        feedback: Vec::new(),
    };
    let lost = Feedback::Loss(LossReport::Frame {
        group: sent.group,
        number: sent.number,
    });
    if sent.there.contains(&false) {
        said.feedback.push(lost);
    }
    for (i, packet) in sent.packets.iter().enumerate() {
        if !sent.there[i] {
            continue;
        }
        let seqnum = sent.first.wrapping_add(i as u16);
        let received = depacketizer
            .push(seqnum, packet)
            .map_err(|e| Failure::Input(e.to_string()))?;
        for what in received {
            match what {
                Received::Unit {
                    data, decodable, ..
                } => {
                    if !decodable {
                        said.feedback.push(lost);
                    }
                    decoder.send(&data, index as u64)?;
                }
                Received::KeyNeeded { urgent: true } => said.feedback.push(Feedback::Key),
                Received::KeyNeeded { urgent: false } => {
                    said.feedback.push(Feedback::Loss(LossReport::Unknown));
                }
            }
        }
    }
    while let Some(decoded) = decoder.receive() {
        if let Decoded::Frame(frame) = decoded {
            said.picture = Some((frame.picture, !frame.concealed));
        }
    }
    Ok(said)
}

/// What the viewer has before him.
#[derive(Default)]
struct Screen {
    picture: Option<Arc<Picture>>,
    /// The last picture that was what the encoder saw.
    exact: Option<Arc<Picture>>,
}

impl Screen {
    fn show(&mut self, original: &Picture, came: Option<(Arc<Picture>, bool)>, sums: &mut Sums) {
        let moves = came.is_some();
        let mut wrong = true;
        match came {
            Some((picture, true)) => {
                sums.exact += 1;
                wrong = false;
                self.exact = Some(picture.clone());
                self.picture = Some(picture);
            }
            Some((picture, false)) => {
                sums.concealed += 1;
                sums.continued.0 += picture.psnr_yuv(original);
                if let Some(exact) = &self.exact {
                    sums.continued.1 += exact.psnr_yuv(original);
                }
                self.picture = Some(picture);
            }
            None => sums.missing += 1,
        }
        if let Some(picture) = &self.picture {
            sums.psnr += picture.psnr_yuv(original);
        }
        sums.still = if moves { 0 } else { sums.still + 1 };
        sums.longest_still = sums.longest_still.max(sums.still + usize::from(!moves));
        if wrong {
            sums.wrong += 1;
            sums.bursts += usize::from(sums.wrong == 1);
        } else {
            sums.wrong = 0;
        }
        sums.longest_wrong = sums.longest_wrong.max(sums.wrong);
    }
}
