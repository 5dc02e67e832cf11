// SPDX-License-Identifier: MPL-2.0
//! Motion search on real clips: prediction quality must not fall below what earlier searches
//! reached.
//!
//! Needs the clips in `$NNV_SHARED/data/test/video` and an `ffmpeg` program; says so and passes
//! without.

use std::path::Path;
use std::process::Command;

use nnv_codec::encode::motion::{SearchParams, search};
use nnv_format::motion::{MotionContexts, MotionField, encode_field, field_bits, predict};
use nnv_format::picture::{Picture, RawFormat};

fn frames(clip: &Path, (width, height): (usize, usize), count: usize) -> Option<Vec<Picture>> {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(clip)
        .args(["-frames:v", &count.to_string()])
        .args(["-f", "rawvideo", "-pix_fmt", "yuv420p", "-"])
        .output()
        .ok()?;
    let (luma, chroma) = (width * height, width * height / 4);
    let frames = out.stdout.chunks_exact(luma + 2 * chroma).map(|f| {
        let planes = [&f[..luma], &f[luma..luma + chroma], &f[luma + chroma..]];
        let strides = [width, width / 2, width / 2];
        Picture::from_raw(
            RawFormat::I420,
            width as u32,
            height as u32,
            &planes,
            &strides,
        )
        .expect("a whole frame")
    });
    Some(frames.collect())
}

#[test]
fn prediction_of_real_clips() {
    let Some(shared) = std::env::var_os("NNV_SHARED").filter(|v| !v.is_empty()) else {
        eprintln!("SKIPPED: NNV_SHARED is not set, so there are no clips to search");
        return;
    };
    let folder = Path::new(&shared).join("data/test/video");
    // Least mean luma PSNR of the prediction from the frame before, in dB.
    let clips = [
        ("vid4_foliage.mkv", (720, 480), 31.5),
        ("mobile_cif_30f.mkv", (352, 288), 29.6),
        ("carphone.mp4", (176, 144), 36.9),
    ];
    for (name, size, floor) in clips {
        let Some(frames) = frames(&folder.join(name), size, 8).filter(|f| f.len() == 8) else {
            eprintln!("SKIPPED: {name} cannot be read from {}", folder.display());
            continue;
        };
        let (mut still, mut moved, mut bits) = (0.0, 0.0, 0.0);
        let mut contexts = MotionContexts::default();
        let mut last: Option<MotionField> = None;
        for pair in frames.windows(2) {
            let params = SearchParams {
                threads: 2,
                ..SearchParams::new(20)
            };
            let field = search(&pair[1], [&pair[0]; 2], last.as_ref(), &params).unwrap();
            let found = predict(&field, &pair[0], &pair[0], 2).unwrap();
            still += pair[1].psnr(&pair[0])[0] / 7.0;
            moved += pair[1].psnr(&found.picture)[0] / 7.0;
            bits += field_bits(&contexts, &field, last.as_ref()) / 7.0;
            let mut encoder = nnv_format::entropy::Encoder::new();
            encode_field(&mut encoder, &mut contexts, &field, last.as_ref());
            last = Some(field);
        }
        println!(
            "{name}: {still:.2} dB still, {moved:.2} dB with motion, {bits:.0} bits per field"
        );
        assert!(moved >= floor, "{name}: {moved:.2} dB is below {floor} dB");
        let pixels = (size.0 * size.1) as f64;
        assert!(bits < 0.06 * pixels, "{name}: {bits:.0} bits per field");
    }
}
