// SPDX-License-Identifier: MPL-2.0
//! Levels: what decoding a stream costs at most, so that a player can refuse before it starts.

use std::fmt;
use std::str::FromStr;

use super::sequence::{Rational, SequenceHeader};

/// The name of the only profile: each decoder of version 1 decodes all that version 1 has.
pub const PROFILE: &str = "main";
/// Memory that the work on a frame takes for each of its luma samples, in bytes; pictures that are
/// kept come on top.
pub const WORK_BYTES: u64 = 48;
/// Memory of a picture for each of its luma samples, in bytes: three planes of 16-bit samples.
pub const PICTURE_BYTES: u64 = 3;

/// Pictures that the memory of a level holds in its largest size: six references, seven that wait.
const PICTURES: u64 = 13;
/// Multiplications that a level allows for each luma sample of its rate.
const MACS: u64 = 16_000;
/// The rate that counts where a stream states none, in frames/s.
const ASSUMED_RATE: Rational = Rational::new(30, 1);

/// Of levels 1, 2 …: most luma samples of a picture, and most pictures of that size in a second.
const BOUNDS: [(u64, u64); 10] = [
    (512 * 288, 30),
    (864 * 480, 30),
    (1280 * 768, 30),
    (1280 * 768, 60),
    (2048 * 1088, 30),
    (2048 * 1088, 60),
    (4096 * 2176, 30),
    (4096 * 2176, 60),
    (8192 * 4352, 30),
    (8192 * 4352, 60),
];

/// A level; a higher one allows all that a lower one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u8);

impl Level {
    /// Without bounds.
    pub const UNBOUNDED: Level = Level(255);

    /// All levels that are known, the lowest first.
    pub fn all() -> impl Iterator<Item = Level> {
        let bounded = (1..=BOUNDS.len() as u8).map(Level);
        bounded.chain([Level::UNBOUNDED])
    }

    /// The level with this number in the sequence header; `None` for 0. Those of later versions lie
    /// above all bounds that are known.
    pub fn from_code(code: u8) -> Option<Level> {
        (code > 0).then_some(Level(code))
    }

    /// Its number in the sequence header.
    pub fn code(self) -> u8 {
        self.0
    }

    /// The lowest level that allows such a stream.
    pub fn of(header: &SequenceHeader) -> Level {
        let bounded = |level: &Level| level.bounds().is_none_or(|b| b.allow(header));
        Level::all().find(bounded).unwrap_or(Level::UNBOUNDED)
    }

    /// `None`: there are no bounds.
    fn bounds(self) -> Option<Bounds> {
        let (samples, rate) = *BOUNDS.get(usize::from(self.0).checked_sub(1)?)?;
        Some(Bounds { samples, rate })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Level::UNBOUNDED => f.write_str("unbounded"),
            Level(number) => number.fmt(f),
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        Level::all()
            .find(|level| level.to_string() == text)
            .ok_or_else(|| {
                format!(
                    "\"{text}\" is no level: those of NNV are 1 to {} and unbounded",
                    BOUNDS.len()
                )
            })
    }
}

/// What decoding costs, as a sequence header states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodingCost {
    /// At least [`Level::of`] the header.
    pub level: Level,
    /// Multiplications with additions that the networks take for each luma sample of the costliest
    /// frame, sides rounded up to multiples of 16.
    pub macs: u32,
}

/// Bounds of a level.
struct Bounds {
    samples: u64,
    rate: u64,
}

impl Bounds {
    fn allow(&self, header: &SequenceHeader) -> bool {
        let (rate, samples) = (rate(header), padded_samples(header));
        // Per second, times the denominator: nothing here comes near 2^128.
        let shown = u128::from(samples) * u128::from(rate.num);
        let most = u128::from(self.samples * self.rate) * u128::from(rate.den);
        let macs = header.cost.map_or(0, |cost| cost.macs);
        let work = WORK_BYTES + PICTURE_BYTES * PICTURES;
        samples <= self.samples
            && shown <= most
            && shown * u128::from(macs) <= most * u128::from(MACS)
            && memory(header) <= self.samples * work
    }
}

fn rate(header: &SequenceHeader) -> Rational {
    match header.frame_rate.num {
        0 => ASSUMED_RATE,
        _ => header.frame_rate,
    }
}

/// Luma samples of a picture, its sides rounded up to multiples of 16.
pub fn padded_samples(header: &SequenceHeader) -> u64 {
    let (rows, columns) = header.latent_size();
    (rows * columns * 256) as u64
}

/// Memory that pictures take in a decoder, in bytes: the one in work, those that are kept and those
/// that wait for their turn. Networks and program come on top.
pub fn memory(header: &SequenceHeader) -> u64 {
    let kept = u64::from(header.gop.max_references) + u64::from(header.gop.max_reorder);
    padded_samples(header) * (WORK_BYTES + PICTURE_BYTES * kept)
}

/// Multiplications with additions that the networks take in a second, where the header states their
/// number; of a stream without a frame rate, as if it had 30 frames/s.
pub fn macs_per_second(header: &SequenceHeader) -> Option<f64> {
    let rate = rate(header);
    let frames = f64::from(rate.num) / f64::from(rate.den);
    Some(f64::from(header.cost?.macs) * padded_samples(header) as f64 * frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream as `nnvenc` writes it with `bframes=7`.
    fn header(width: u32, height: u32, rate: u32, macs: u32) -> SequenceHeader {
        let mut header = SequenceHeader::new("realtime", [0; 8], width, height, 8);
        header.frame_rate = Rational::new(rate, 1);
        (header.gop.max_references, header.gop.max_reorder) = (6, 7);
        let level = Level::UNBOUNDED;
        header.cost = Some(DecodingCost { level, macs });
        header
    }

    #[test]
    fn known_sizes_have_their_levels() {
        for (width, height, rate, macs, level) in [
            (1, 1, 1, 1, "1"),
            (320, 180, 30, 9548, "1"),
            (512, 288, 30, 9548, "1"),
            // Of the same size, faster; one row more.
            (512, 288, 31, 9548, "2"),
            (512, 289, 30, 9548, "2"),
            (640, 360, 30, 9548, "2"),
            (720, 576, 25, 9548, "2"),
            (854, 480, 30, 9548, "2"),
            (640, 360, 60, 9548, "3"),
            (1280, 720, 30, 9548, "3"),
            (1280, 720, 60, 9548, "4"),
            (1920, 1080, 30, 9548, "5"),
            (1920, 1080, 60, 9548, "6"),
            (3840, 2160, 30, 9548, "7"),
            (3840, 2160, 60, 9548, "8"),
            (7680, 4320, 30, 9548, "9"),
            (7680, 4320, 60, 9548, "10"),
            (7680, 4320, 120, 9548, "unbounded"),
            (16384, 16384, 1, 1, "unbounded"),
            // Networks that take more than a level allows, exactly as much, and at half the rate.
            (512, 288, 30, 16_001, "2"),
            (512, 288, 30, 16_000, "1"),
            (512, 288, 15, 32_000, "1"),
            (320, 180, 0, 9548, "1"),
            (1280, 720, 0, 9548, "3"),
        ] {
            let header = header(width, height, rate, macs);
            let found = Level::of(&header).to_string();
            assert_eq!(found, level, "{width}x{height} {rate} {macs}");
        }
        let mut ntsc = header(1280, 768, 60, 9548);
        ntsc.frame_rate = Rational::new(60_000, 1001);
        assert_eq!(Level::of(&ntsc).code(), 4);
        ntsc.frame_rate = Rational::new(u32::MAX >> 1, 1);
        assert_eq!(Level::of(&ntsc), Level::UNBOUNDED);
        // More pictures are kept than the level's memory holds in its largest size.
        let mut kept = header(512, 288, 30, 9548);
        kept.gop.max_references = 7;
        assert_eq!(Level::of(&kept).code(), 2);
        kept.width = 480;
        assert_eq!(Level::of(&kept).code(), 1);
        // Without a statement: by all that is stated.
        kept.cost = None;
        assert_eq!(Level::of(&kept).code(), 1);
    }

    #[test]
    fn levels_rise_and_have_names() {
        let all: Vec<_> = Level::all().collect();
        assert!(all.is_sorted() && all.len() == 11);
        for level in all {
            assert_eq!(Level::from_code(level.code()), Some(level));
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!(Level::from_code(0), None);
        for later in [11, 100, 254].map(|code| Level::from_code(code).unwrap()) {
            assert!(later > Level(10) && later < Level::UNBOUNDED && later.bounds().is_none());
        }
        for text in ["", "0", "01", "11", "255", "2.1", "Unbounded"] {
            let error = text.parse::<Level>().unwrap_err();
            assert!(error.contains("1 to 10"), "{error}");
        }
        for pair in BOUNDS.windows(2) {
            assert!(pair[0].0 * pair[0].1 < pair[1].0 * pair[1].1);
        }
    }

    #[test]
    fn cost_is_told() {
        let header = header(1920, 1080, 30, 9548);
        // Rows are padded to 1088.
        assert_eq!(padded_samples(&header), 1920 * 1088);
        assert_eq!(macs_per_second(&header), Some(9548.0 * 2_088_960.0 * 30.0));
        assert_eq!(memory(&header), 2_088_960 * 87);
    }

    /// The table of the document is that of the code.
    #[test]
    fn the_document_has_the_table() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bitstream.md");
        let text = std::fs::read_to_string(path).unwrap();
        for level in Level::all() {
            let row = match level.bounds() {
                None => "| 255, *unbounded* | | | | |".into(),
                Some(Bounds { samples, rate }) => format!(
                    "| {level} | {samples} | {} | {} | {} |",
                    samples * rate,
                    (samples * rate * MACS).div_ceil(1_000_000_000),
                    (samples * (WORK_BYTES + PICTURE_BYTES * PICTURES)).div_ceil(1 << 20),
                ),
            };
            assert!(text.lines().any(|line| line == row), "not there: {row}");
        }
    }
}
