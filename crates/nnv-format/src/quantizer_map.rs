// SPDX-License-Identifier: MPL-2.0
//! Adaptive quantization: a quantizer for each place of the latent, 16×16 luma samples.
//!
//! Quiet areas take a finer quantizer than busy ones, which hide errors. What a key frame gives
//! them, the frames predicted from it keep.

use nnv_bitstream::limits::MAX_QUANTIZER;

use super::entropy::{BinaryCoder, Encoder, EntropyError, SIntModel};
use super::tables::{LATENT_CHANNELS, Tables};

/// Quantizers from one value of a map to the next: a third of an octave of the step.
pub const MAP_UNIT: i16 = 4;
/// Smallest and largest value.
pub const VALUES: std::ops::RangeInclusive<i32> = -4..=3;
/// What the prior's offset is raised by for frames with a map, in halves of a scale index, so that
/// no index is cut off at zero that the finest quantizer needs.
pub const HEADROOM: i16 = MAP_UNIT * -(*VALUES.start() as i16);

/// Values by place, row after row; quantizers of the frame plus [`MAP_UNIT`] times these hold
/// there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizerMap {
    width: usize,
    values: Vec<i8>,
}

/// Adaptive models of a map's syntax, one for each class of how much the neighbours differ. They
/// start afresh in each frame.
type Models = [SIntModel<0>; 3];

impl QuantizerMap {
    /// Values by place, row after row, `width` places in each.
    ///
    /// # Panics
    /// Where there are no whole rows, or a value is not within [`VALUES`].
    pub fn new(width: usize, values: Vec<i8>) -> Self {
        assert!(values.len().is_multiple_of(width.max(1)), "rows are whole");
        assert!(
            values.iter().all(|&v| VALUES.contains(&i32::from(v))),
            "values are within their limits"
        );
        Self { width, values }
    }

    /// Values by place, row after row.
    pub fn values(&self) -> &[i8] {
        &self.values
    }

    /// Whether the map changes nothing.
    pub fn is_flat(&self) -> bool {
        self.values.iter().all(|&v| v == 0)
    }

    /// Writes the map.
    pub fn encode<C: BinaryCoder>(&self, coder: &mut C) {
        let mut copy = self.values.clone();
        // What is there is within its limits.
        let _ = Self::code(coder, self.width, &mut copy);
    }

    /// The map as a part of a frame.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut coder = Encoder::new();
        self.encode(&mut coder);
        coder.finish()
    }

    /// Reads the map of a latent of this size.
    ///
    /// # Errors
    /// [`EntropyError::SymbolRange`] for a value beyond its limits. The coder's own state is not
    /// looked at.
    pub fn decode<C: BinaryCoder>(
        coder: &mut C,
        width: usize,
        height: usize,
    ) -> Result<Self, EntropyError> {
        let mut values = vec![0; width * height];
        Self::code(coder, width, &mut values)?;
        Ok(Self { width, values })
    }

    /// Each value less the mean of its left and upper neighbour (one of them at the borders, 0 at
    /// the first place).
    fn code<C: BinaryCoder>(
        coder: &mut C,
        width: usize,
        values: &mut [i8],
    ) -> Result<(), EntropyError> {
        let mut models = Models::default();
        for at in 0..values.len() {
            let left = (at % width > 0).then(|| i32::from(values[at - 1]));
            let above = (at >= width).then(|| i32::from(values[at - width]));
            let (expected, class) = match (left, above) {
                (Some(l), Some(a)) => ((l + a) >> 1, l.abs_diff(a).min(2) as usize),
                (Some(v), None) | (None, Some(v)) => (v, 1),
                (None, None) => (0, 2),
            };
            let value = expected + models[class].code(coder, i32::from(values[at]) - expected);
            if !VALUES.contains(&value) {
                return Err(EntropyError::SymbolRange);
            }
            values[at] = value as i8;
        }
        Ok(())
    }
}

/// The quantisation of a frame: its quantizer, and the map if it has one.
#[derive(Debug, Clone)]
pub struct Quantisation<'a> {
    /// Step of each channel at the frame's quantizer, in 1/64.
    frame: &'a [u16; LATENT_CHANNELS],
    /// For frames with a map, by place.
    places: Option<Vec<Place<'a>>>,
}

#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    step: &'a [u16; LATENT_CHANNELS],
    /// What is taken off the scale indices that the prior gives.
    less: u8,
}

impl<'a> Quantisation<'a> {
    /// That of a frame without a map.
    pub fn of_steps(frame: &'a [u16; LATENT_CHANNELS]) -> Self {
        Self {
            frame,
            places: None,
        }
    }

    /// That of a frame of this quantizer, with a map where there is one.
    pub fn new(tables: &'a Tables, quantizer: u8, map: Option<&QuantizerMap>) -> Self {
        let place = |&value: &i8| {
            let at = i16::from(quantizer) + MAP_UNIT * i16::from(value);
            let at = at.clamp(0, i16::from(MAX_QUANTIZER)) as u8;
            let less = (tables.qoff(quantizer) + HEADROOM - tables.qoff(at)) >> 1;
            Place {
                step: tables.step(at),
                less: less.clamp(0, 63) as u8,
            }
        };
        Self {
            frame: tables.step(quantizer),
            places: map.map(|map| map.values.iter().map(place).collect()),
        }
    }

    /// The step of channel `c` at place `at`.
    #[inline(always)]
    pub fn step(&self, c: usize, at: usize) -> u16 {
        self.places
            .as_ref()
            .map_or(self.frame[c], |places| places[at].step[c])
    }

    /// Scale indices `[384, places]` that the prior gave with its offset raised by [`HEADROOM`], as
    /// they hold with the map; `None` where they hold as they are.
    pub fn scales(&self, raised: &[u8]) -> Option<Vec<u8>> {
        let places = self.places.as_ref()?;
        let mut out = raised.to_vec();
        for plane in out.chunks_exact_mut(places.len()) {
            for (k, place) in plane.iter_mut().zip(places) {
                *k = k.saturating_sub(place.less);
            }
        }
        Some(out)
    }

    /// Brings latents `[384, places]` that are in the frame's steps into those of their places.
    pub fn rescale(&self, y: &mut [f32]) {
        let Some(places) = &self.places else { return };
        for (c, plane) in y.chunks_exact_mut(places.len()).enumerate() {
            for (y, place) in plane.iter_mut().zip(places) {
                *y *= f32::from(self.frame[c]) / f32::from(place.step[c].max(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entropy::Decoder;
    use super::*;

    fn map(width: usize, values: Vec<i8>) -> QuantizerMap {
        QuantizerMap { width, values }
    }

    fn bytes(map: &QuantizerMap) -> Vec<u8> {
        map.to_bytes()
    }

    #[test]
    fn maps_round_trip() {
        let mut seed = 7u32;
        for (width, height) in [(1, 1), (1, 9), (13, 1), (40, 23)] {
            let values = (0..width * height)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 29) as i8 - 4
                })
                .collect();
            let map = map(width, values);
            let data = bytes(&map);
            let mut coder = Decoder::new(&data);
            let back = QuantizerMap::decode(&mut coder, width, height).unwrap();
            coder.finish().unwrap();
            assert_eq!(back, map);
        }
    }

    #[test]
    fn smooth_maps_are_small() {
        let values = (0..40 * 23).map(|i| if i % 40 < 17 { -2 } else { 1 });
        let data = bytes(&map(40, values.collect()));
        assert!(data.len() < 40, "{} bytes", data.len());
    }

    #[test]
    fn damage_never_gives_a_value_beyond_the_limits() {
        let mut seed = 3u32;
        let mut refused = 0;
        for _ in 0..200 {
            let data: Vec<u8> = (0..30)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            match QuantizerMap::decode(&mut Decoder::new(&data), 9, 7) {
                Ok(map) => assert!(map.values.iter().all(|&v| VALUES.contains(&i32::from(v)))),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 50, "{refused}");
    }
}
