// SPDX-License-Identifier: MPL-2.0
//! Frames per second of each measure on one thread: 1280×720 in 4:2:0, moving noise on waves.
//!
//! ```text
//! cargo run --release -p nnv-quality --example speed
//! ```
//!
//! VMAF where libvmaf is there.

use std::time::Instant;

use nnv_quality::{Colour, Meter, Metrics, PlaneView, QualityError, Vmaf, VmafModel};

const SIZE: (usize, usize) = (1280, 720);

/// Planes of a picture: bytes, or words of 10 bits.
enum Picture {
    Bytes([Vec<u8>; 3]),
    Words([Vec<u16>; 3]),
}

impl Picture {
    fn new(t: usize, noise: u32, depth: u8) -> Self {
        let mut seed = 7 + t as u32;
        let planes = [0, 1, 1].map(|half| {
            let (w, h) = (SIZE.0 >> half, SIZE.1 >> half);
            let samples = (0..w * h).map(|i| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (x, y) = ((i % w + 3 * t) as f32, (i / w) as f32);
                let wave = 110.0 + 90.0 * (x * 0.05).sin() * (y * 0.04).cos();
                ((wave as u32 + (seed >> 24) % (noise + 1)) << (depth - 8)) as u16
            });
            samples.collect::<Vec<u16>>()
        });
        if depth == 8 {
            Self::Bytes(planes.map(|p| p.into_iter().map(|v| v as u8).collect()))
        } else {
            Self::Words(planes)
        }
    }

    fn views(&self) -> Result<[PlaneView<'_>; 3], QualityError> {
        let view = |i: usize| {
            let (w, h) = (SIZE.0 >> i.min(1), SIZE.1 >> i.min(1));
            match self {
                Self::Bytes(planes) => PlaneView::u8(&planes[i], w, h, w),
                Self::Words(planes) => PlaneView::u16(&planes[i], w, h, w, 10),
            }
        };
        Ok([view(0)?, view(1)?, view(2)?])
    }
}

/// Time of the processor where the system tells it, so that a busy machine does not matter.
struct Clock(Instant, Option<u64>);

impl Clock {
    fn now() -> Self {
        Self(Instant::now(), Self::processor())
    }

    /// Nanoseconds that this thread ran.
    fn processor() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    fn seconds(&self) -> f64 {
        match (self.1, Self::processor()) {
            (Some(before), Some(now)) => (now - before) as f64 * 1e-9,
            _ => self.0.elapsed().as_secs_f64(),
        }
    }
}

fn main() -> Result<(), QualityError> {
    let none = Metrics::default();
    let cases = [
        ("PSNR", none, None, 120),
        ("PSNR, SSIM", Metrics { ssim: true, ..none }, None, 120),
        (
            "PSNR, MS-SSIM",
            Metrics {
                ms_ssim: true,
                ..none
            },
            None,
            6,
        ),
        (
            "PSNR, XPSNR",
            Metrics {
                xpsnr: true,
                ..none
            },
            None,
            12,
        ),
        (
            "PSNR, SSIMULACRA2",
            Metrics {
                ssimulacra2: true,
                ..none
            },
            None,
            3,
        ),
        ("PSNR, VMAF", none, Some(Vmaf::DEFAULT_MODEL), 240),
        ("PSNR, VMAF, newest", none, Some(Vmaf::NEWEST_MODEL), 60),
    ];
    println!("frames per second of the processor, one thread, 1280x720, median of five");
    println!("{:26}  {:>8}  {:>8}", "", "8 bit", "10 bit");
    let both = |t, depth| (Picture::new(t, 0, depth), Picture::new(t, 12, depth));
    for (name, metrics, model, frames) in cases {
        print!("{name:26}");
        if let Some(Err(e)) = model.map(Vmaf::new) {
            println!("  {e}");
            continue;
        }
        for depth in [8, 10] {
            let clip = [both(0, depth), both(1, depth)];
            let mut rates = Vec::new();
            for _ in 0..5 {
                let vmaf = model.map(Vmaf::new).transpose()?;
                let mut meter = Meter::new(metrics, 25, Colour::default()).with_vmaf(vmaf);
                let start = Clock::now();
                for t in 0..frames {
                    let (a, b) = &clip[t % 2];
                    meter.add(&a.views()?, &b.views()?)?;
                }
                meter.finish()?;
                rates.push(frames as f64 / start.seconds());
            }
            rates.sort_by(f64::total_cmp);
            print!("  {:8.1}", rates[2]);
        }
        println!();
    }
    let Ok(model) = VmafModel::new(Vmaf::DEFAULT_MODEL) else {
        return Ok(());
    };
    print!("{:26}", "VMAF, single frames");
    for depth in [8, 10] {
        let [(a, _), (b, coded)] = [both(0, depth), both(1, depth)];
        let (a, b, coded) = (a.views()?, b.views()?, coded.views()?);
        let mut rates = Vec::new();
        for _ in 0..5 {
            let start = Clock::now();
            for _ in 0..20 {
                model.frame(Some(&a), &b, &coded, Some(&a))?;
            }
            rates.push(20.0 / start.seconds());
        }
        rates.sort_by(f64::total_cmp);
        print!("  {:8.1}", rates[2]);
    }
    println!();
    Ok(())
}
