// SPDX-License-Identifier: MPL-2.0
//! `nnv model --atlas`: what each channel of a bundle's latent draws, and what it costs.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use nnv_bitstream::{BundleHash, StreamInfo};
use nnv_codec::config::{DecoderConfig, EncoderConfig};
use nnv_codec::decode::{Decoded, Decoder, Wanted};
use nnv_codec::encode::{Encoder, InputFrame};
use nnv_format::grid::Grid;
use nnv_format::picture::Picture;
use nnv_format::quantizer_map::Quantisation;
use nnv_format::tables::{LATENT_CHANNELS, NetworkSet};
use nnv_nn::{Cancel, InterItem, Model, RuntimeOptions};

use crate::failure::{Failure, Result};
use crate::files::check_outputs;
use crate::frames::{Decoding, Frames};
use crate::models;

/// Quantizers that bits are counted at.
const QUANTIZERS: [u8; 3] = [16, 28, 40];
/// Places of the pictures in which one symbol is drawn, on a side: odd.
const PLACES: usize = 5;
/// Its value, and the quantizer of its step.
const SYMBOL: i16 = 4;
const STEP_OF: u8 = 28;
/// Luma samples of a tile, on a side, around that symbol.
const TILE: usize = 48;
/// Tiles in a row of the sheet.
const ACROSS: usize = 16;
/// Channels in one run of the synthesis.
const BATCH: usize = 16;

const STYLE: &str = include_str!("../assets/inspect.css");

/// One channel of one set of networks.
struct Channel {
    /// Its number.
    number: usize,
    /// The plane that it changes most.
    plane: &'static str,
    /// What it adds there, `TILE`×`TILE` luma samples, in 10-bit samples.
    tile: Vec<i16>,
    /// The greatest of that, in 8-bit samples.
    peak: f32,
    /// Share of the latent's bits at each of the quantizers, in percent.
    shares: [f64; QUANTIZERS.len()],
}

impl Channel {
    /// It draws nothing, or is never used.
    fn is_dead(&self) -> bool {
        self.peak == 0.0 || self.shares.iter().all(|&s| s == 0.0)
    }
}

/// Writes the atlas of a bundle.
pub fn run(
    bundle: &str,
    page: &Path,
    clip: Option<&Path>,
    frames: usize,
    threads: u32,
) -> Result<()> {
    check_outputs(clip, [page])?;
    let options = RuntimeOptions {
        threads: threads as usize,
        ..RuntimeOptions::default()
    };
    let model = Model::load(&models::source(bundle), &options)?;
    let clip_name = clip.map_or("moving waves".into(), |path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    });
    let (pictures, bit_depth) = match clip {
        Some(path) => read(path, frames, threads)?,
        None => (crate::bench::synthetic_pictures(frames)?, 8),
    };
    let spent = QUANTIZERS
        .iter()
        .map(|&q| spent(&model, &pictures, bit_depth, q, threads))
        .collect::<Result<Vec<_>>>()?;
    let mut sets = Vec::new();
    for (set, name) in [
        (NetworkSet::Key, "Key frames"),
        (NetworkSet::Inter, "Inter frames"),
    ] {
        let order = model.tables(set).symbols().order().to_vec();
        let drawn = draw(&model, set)?;
        let mut channels: Vec<Channel> = drawn;
        for (rank, &c) in order.iter().enumerate() {
            for (i, spent) in spent.iter().enumerate() {
                let bits = &spent[usize::from(set == NetworkSet::Inter)];
                let sum: u64 = bits.iter().sum();
                channels[usize::from(c)].shares[i] = 100.0 * bits[rank] as f64 / sum.max(1) as f64;
            }
        }
        // As they are coded: from low to high frequencies.
        let mut slots: Vec<Option<Channel>> = channels.into_iter().map(Some).collect();
        let ordered: Vec<Channel> = (order.iter())
            .filter_map(|&c| slots[usize::from(c)].take())
            .collect();
        let live = ordered.iter().filter(|c| !c.is_dead()).count();
        println!(
            "{}, {}: {live} of {LATENT_CHANNELS} channels live on {clip_name} ({} frames, \
             quantizers {QUANTIZERS:?})",
            model.name(),
            name.to_lowercase(),
            pictures.len()
        );
        sets.push((name, ordered));
    }
    let html = html(&model, &clip_name, pictures.len(), &sets)?;
    std::fs::write(page, html).map_err(|e| Failure::file(page, e))
}

fn read(path: &Path, limit: usize, threads: u32) -> Result<(Vec<Arc<Picture>>, u8)> {
    let decoding = Decoding {
        model: None,
        threads,
        ..Decoding::default()
    };
    let mut from = Frames::open(path, &decoding)?;
    let (mut pictures, mut bit_depth) = (Vec::new(), 8);
    while pictures.len() < limit
        && let Some(frame) = from.next()?
    {
        bit_depth = frame.bit_depth;
        pictures.push(frame.picture);
    }
    if pictures.len() < 2 {
        return Err(Failure::file(path, "an atlas needs two frames at least"));
    }
    Ok((pictures, bit_depth))
}

/// Bits of key and inter frames by channel, in the order of coding.
fn spent(
    model: &Arc<Model>,
    pictures: &[Arc<Picture>],
    bit_depth: u8,
    quantizer: u8,
    threads: u32,
) -> Result<[Vec<u64>; 2]> {
    let info = StreamInfo::new(pictures[0].width(), pictures[0].height(), bit_depth);
    let config = EncoderConfig {
        quantizer,
        threads,
        ..EncoderConfig::new(info)
    };
    let mut encoder = Encoder::new(model.clone(), config)?;
    let provided = model.clone();
    let config = DecoderConfig {
        threads,
        ..DecoderConfig::default()
    };
    let mut decoder = Decoder::new(move |_: &str, _: &BundleHash| Ok(provided.clone()), config);
    decoder.set_analysis(Some(Wanted {
        prediction: false,
        bits: true,
    }));
    for (i, picture) in pictures.iter().enumerate() {
        encoder.send(InputFrame::new(picture.clone(), i as u64))?;
        while let Some(unit) = encoder.receive()? {
            decoder.send(&unit.data, unit.id)?;
        }
    }
    encoder.finish()?;
    while let Some(unit) = encoder.receive()? {
        decoder.send(&unit.data, unit.id)?;
    }
    decoder.finish()?;
    let mut sums = [vec![0; LATENT_CHANNELS], vec![0; LATENT_CHANNELS]];
    while let Some(decoded) = decoder.receive() {
        let Decoded::Frame(frame) = decoded else {
            continue;
        };
        if let Some(analysis) = &frame.analysis
            && let Some(bits) = &analysis.latent_bits
        {
            let sums = &mut sums[usize::from(!analysis.header.is_key())];
            (sums.iter_mut().zip(&bits.by_channel)).for_each(|(sum, bits)| *sum += bits);
        }
    }
    Ok(sums)
}

/// What one symbol in the middle of each channel adds to a grey picture.
fn draw(model: &Model, set: NetworkSet) -> Result<Vec<Channel>> {
    let cancel = Cancel::new();
    let grid = Grid::new(PLACES, PLACES)?;
    let side = 16 * PLACES as u32;
    let (zero, z) = (
        vec![0_i16; grid.picture_len()],
        vec![0_i8; model.z_len(grid)],
    );
    let steps = Quantisation::new(model.tables(set), STEP_OF, None);
    let middle = PLACES * PLACES / 2;
    // The pictures of these latents.
    let synthesise = |latents: &[Vec<i16>]| -> Result<Vec<Picture>> {
        let items: Vec<InterItem> = (latents.iter())
            .map(|_| InterItem {
                quantizer: STEP_OF,
                p: &zero,
                d: &zero,
            })
            .collect();
        let batch = match set {
            NetworkSet::Key => model.key_batch(grid, &vec![STEP_OF; latents.len()])?,
            NetworkSet::Inter => model.inter_batch(grid, &items)?,
        };
        let prior = batch.prior(&vec![&z[..]; latents.len()], &cancel)?;
        let r: Vec<&[i16]> = latents.iter().map(|r| &r[..]).collect();
        let made = batch.synthesise(&prior, &r, &cancel)?;
        (0..latents.len())
            .map(|i| {
                let mut picture = Picture::new(side, side)?;
                picture.unpack(made.get(i))?;
                Ok(picture)
            })
            .collect()
    };
    let latent = |channel: Option<usize>| {
        let mut r = vec![0_i16; grid.y_len()];
        if let Some(c) = channel {
            let value = i32::from(SYMBOL) * i32::from(steps.step(c, middle)) / 64;
            r[c * PLACES * PLACES + middle] = value.min(2047) as i16;
        }
        r
    };
    let grey = &synthesise(&[latent(None)])?[0];
    let mut channels = Vec::with_capacity(LATENT_CHANNELS);
    let numbers: Vec<usize> = (0..LATENT_CHANNELS).collect();
    for numbers in numbers.chunks(BATCH) {
        let latents: Vec<Vec<i16>> = numbers.iter().map(|&c| latent(Some(c))).collect();
        for (&number, picture) in numbers.iter().zip(synthesise(&latents)?) {
            channels.push(channel(number, grey, &picture));
        }
    }
    Ok(channels)
}

fn channel(number: usize, grey: &Picture, picture: &Picture) -> Channel {
    let difference = |plane: usize, x: usize, y: usize| {
        let [a, b] = [grey, picture].map(|p| i32::from(p.plane(plane).row(y)[x]));
        (b - a) as i16
    };
    let peaks = [0, 1, 2].map(|plane| {
        let of = picture.plane(plane);
        let (w, h) = (of.visible_width(), of.visible_height());
        let all = (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
        let most = all
            .map(|(x, y)| difference(plane, x, y).unsigned_abs())
            .max();
        most.unwrap_or(0)
    });
    // Luma where they are equal.
    let plane = (0..3).rev().max_by_key(|&plane| peaks[plane]).unwrap_or(0);
    let samples = if plane == 0 { 1 } else { 2 };
    let first = (16 * PLACES - TILE) / 2;
    let tile = (0..TILE * TILE)
        .map(|at| {
            let (x, y) = (first + at % TILE, first + at / TILE);
            difference(plane, x / samples, y / samples)
        })
        .collect();
    Channel {
        number,
        plane: ["Y", "U", "V"][plane],
        tile,
        peak: f32::from(peaks[plane]) / 4.0,
        shares: [0.0; QUANTIZERS.len()],
    }
}

/// The tiles of a set in one picture, each stretched to its own greatest value.
fn sheet(channels: &[Channel]) -> Result<String> {
    let (width, height) = (ACROSS * TILE, channels.len().div_ceil(ACROSS) * TILE);
    let mut pixels = vec![128_u8; width * height];
    for (i, channel) in channels.iter().enumerate() {
        let most = channel
            .tile
            .iter()
            .map(|v| v.unsigned_abs())
            .max()
            .unwrap_or(0)
            .max(1);
        let (left, top) = (i % ACROSS * TILE, i / ACROSS * TILE);
        for (at, &v) in channel.tile.iter().enumerate() {
            let grey = 128.0 + 127.0 * f32::from(v) / f32::from(most);
            pixels[(top + at / TILE) * width + left + at % TILE] = grey.round() as u8;
        }
    }
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    writer.finish()?;
    Ok(BASE64.encode(png))
}

/// Text within HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

fn html(model: &Model, clip: &str, frames: usize, sets: &[(&str, Vec<Channel>)]) -> Result<String> {
    let mut out = String::new();
    let name = escaped(model.name());
    let hash = nnv_nn::hex(&model.hash()[..8]);
    write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{name}: channels</title><style>{STYLE}\n\
         .atlas{{display:grid;grid-template-columns:repeat(auto-fill,minmax(78px,1fr));gap:8px;\
         padding:0;list-style:none}}\
         .atlas b{{display:block;width:{TILE}px;height:{TILE}px}}\
         .atlas li{{font-size:.72rem;color:var(--weak);line-height:1.25}}\
         .atlas .dead b{{opacity:.25}}</style>\
         <header><h1>{name}: the channels of the latent</h1>\
         <p>Bundle {hash}. Each tile: what one symbol of {SYMBOL} at quantizer {STEP_OF} adds to \
         a grey picture in the plane that it changes most, stretched to its own greatest value. \
         Below it the channel's number, that plane and that value in 8-bit samples, and its share \
         in percent of the \
         latent's bits at quantizers {}. Clip: {}, {frames} frames. Order of coding: low \
         frequencies first. Dead channels draw nothing or were never used; they are pale.</p>\
         </header><main>",
        QUANTIZERS.map(|q| q.to_string()).join(", "),
        escaped(clip),
    )?;
    for (n, (title, channels)) in sets.iter().enumerate() {
        let live = channels.iter().filter(|c| !c.is_dead()).count();
        write!(
            out,
            "<style>.s{n} b{{background-image:url(data:image/png;base64,{})}}</style>\
             <section><h2>{title}: {live} of {} live</h2><ul class=\"atlas s{n}\">",
            sheet(channels)?,
            channels.len()
        )?;
        for (i, c) in channels.iter().enumerate() {
            let dead = if c.is_dead() { " class=\"dead\"" } else { "" };
            let (x, y) = (i % ACROSS * TILE, i / ACROSS * TILE);
            let shares = c.shares.map(|s| format!("{s:.1}")).join(" ");
            write!(
                out,
                "<li{dead}><b style=\"background-position:-{x}px -{y}px\"></b>{}{}<br>{} {:.0}<br>\
                 {shares}</li>",
                c.number,
                if c.is_dead() { " dead" } else { "" },
                c.plane,
                c.peak
            )?;
        }
        out.push_str("</ul></section>");
    }
    out.push_str("</main></html>\n");
    Ok(out)
}
