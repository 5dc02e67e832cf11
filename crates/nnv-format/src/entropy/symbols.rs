// SPDX-License-Identifier: MPL-2.0
//! Coding of the latent `y`: adaptive tables per scale index, mixed with what the neighbourhood
//! says.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use nnv_bitstream::limits::MAX_Y_STREAMS;
use nnv_cpu::parallel;

use super::band::{BandState, GROUP, Layout, NEAR_CLASSES, code_band, scale_class};
use super::error::EntropyError;
use super::hyper::HyperState;
use super::range::{BinaryCoder, Decoder, Encoder, bit_cost};
use super::spent::{LatentBits, Meter, PlaceMeter, Watched};
use super::tables::{BINS, LatentShape, MAX_MAGNITUDE, SCALES, Symbol, SymbolTables};

/// The adaptive state of a frame's symbols: what a frame inherits from its reference and leaves to
/// its successors.
///
/// One frame is coded by [`encode_z`](Self::encode_z), then [`encode_y`](Self::encode_y) (or the
/// decoding pair), on a clone of the state that its reference left; the clone is then kept with the
/// new frame.
///
/// State that comes from a damaged frame must not be used: start again at the next key frame.
#[derive(Clone, Debug)]
pub struct SymbolContexts {
    tables: Arc<SymbolTables>,
    y_shape: LatentShape,
    z_shape: LatentShape,
    bands: Vec<BandState>,
    hyper: HyperState,
    /// Of the frame coded last: magnitudes (at most 15) of `y`, and `z`.
    magnitudes: Option<Arc<[Vec<u8>]>>,
    z: Option<Arc<[i8]>>,
}

impl SymbolContexts {
    /// The state before the first frame of its kind: that of the tables.
    ///
    /// `height` and `width`: size of `y`, that is the padded picture's over 16. `streams`: number
    /// of independent streams of `y`; it is cut into that many bands of rows (some without rows
    /// where there are few).
    ///
    /// # Errors
    /// [`EntropyError::Shape`] when the size is zero or `streams` not within 1 to 8.
    pub fn new(
        tables: Arc<SymbolTables>,
        height: usize,
        width: usize,
        streams: usize,
    ) -> Result<SymbolContexts, EntropyError> {
        if height == 0 || width == 0 || !(1..=usize::from(MAX_Y_STREAMS)).contains(&streams) {
            return Err(EntropyError::Shape {
                what: "latents need a size above zero and 1 to 8 streams",
            });
        }
        let y_shape = LatentShape {
            channels: tables.channels(),
            height,
            width,
        };
        let z_shape = LatentShape {
            channels: tables.hyper_channels(),
            height: height.div_ceil(4),
            width: width.div_ceil(4),
        };
        let bands = vec![BandState::new(&tables); streams];
        let hyper = HyperState::new(&tables);
        Ok(SymbolContexts {
            tables,
            y_shape,
            z_shape,
            bands,
            hyper,
            magnitudes: None,
            z: None,
        })
    }

    /// Shape of `y`: `[channels, H/16, W/16]`.
    pub fn y_shape(&self) -> LatentShape {
        self.y_shape
    }

    /// Shape of `z`: `[hyper channels, ceil(H/64), ceil(W/64)]`.
    pub fn z_shape(&self) -> LatentShape {
        self.z_shape
    }

    /// Streams that `y` of each frame has.
    pub fn streams(&self) -> usize {
        self.bands.len()
    }

    /// Rows of `y` that stream `i` of `n` holds.
    fn layout(shape: LatentShape, n: usize, i: usize) -> Layout {
        let first_row = shape.height * i / n;
        Layout {
            shape,
            first_row,
            rows: shape.height * (i + 1) / n - first_row,
        }
    }

    fn check_scales(&self, scale_idx: &[u8]) -> Result<(), EntropyError> {
        self.check(
            "scale_idx has another size than its frame",
            scale_idx.len(),
            self.y_shape,
        )?;
        // The maximum by bits: 64 is a power of two.
        let bits = scale_idx.iter().fold(0, |a, k| a | k);
        if usize::from(bits) < SCALES {
            Ok(())
        } else {
            Err(EntropyError::ScaleIndex)
        }
    }

    fn check(
        &self,
        what: &'static str,
        len: usize,
        shape: LatentShape,
    ) -> Result<(), EntropyError> {
        if len == shape.len() {
            Ok(())
        } else {
            Err(EntropyError::Shape { what })
        }
    }

    /// Writes the hyper-latent. Values are clamped to +-127 (only -128 is affected).
    ///
    /// # Errors
    /// [`EntropyError::Shape`] when the length is not that of [`z_shape`](Self::z_shape).
    pub fn encode_z(&mut self, z: &[i8]) -> Result<Vec<u8>, EntropyError> {
        self.check("z has another size than its frame", z.len(), self.z_shape)?;
        let mut enc = Encoder::new();
        let mut copy: Vec<i8> = z.iter().map(|&v| v.max(-127)).collect();
        self.hyper
            .code(&mut enc, self.z_shape, &mut copy, self.z.as_deref(), |_| ());
        self.z = Some(copy.into());
        Ok(enc.finish())
    }

    /// Reads the hyper-latent.
    ///
    /// # Errors
    /// When the data is cut or damaged.
    pub fn decode_z(&mut self, data: &[u8]) -> Result<Arc<[i8]>, EntropyError> {
        let mut dec = Decoder::new(data);
        let mut z = vec![0i8; self.z_shape.len()];
        let sound = self
            .hyper
            .code(&mut dec, self.z_shape, &mut z, self.z.as_deref(), |_| ());
        dec.finish()?;
        if !sound {
            return Err(EntropyError::SymbolRange);
        }
        let z: Arc<[i8]> = z.into();
        self.z = Some(z.clone());
        Ok(z)
    }

    /// Writes the latent: one byte string per stream. Symbols where `scale_idx` is 0 are not looked
    /// at.
    ///
    /// Of each place and [`HIDING_CHANNELS`](super::HIDING_CHANNELS) in the order of coding, the
    /// sign of the first symbol other than zero is not written where the magnitudes sum up to
    /// [`HIDING_SUM`](super::HIDING_SUM) or more: it must be negative where that sum is odd.
    ///
    /// # Errors
    /// [`EntropyError::Shape`] when a length does not fit; [`EntropyError::SymbolRange`] when a
    /// symbol's magnitude is above 2047; [`EntropyError::Parity`] when a sign does not fit its
    /// place's magnitudes.
    pub fn encode_y(
        &mut self,
        scale_idx: &[u8],
        symbols: &[i16],
    ) -> Result<Vec<Vec<u8>>, EntropyError> {
        self.check_scales(scale_idx)?;
        self.check(
            "y has another size than its frame",
            symbols.len(),
            self.y_shape,
        )?;
        if symbols.iter().any(|&s| i32::from(s).abs() > MAX_MAGNITUDE) {
            return Err(EntropyError::SymbolRange);
        }
        let (tables, shape, reference) = (&*self.tables, self.y_shape, self.magnitudes.as_deref());
        let n = self.bands.len();
        let parts = Self::each_band(&mut self.bands, |i, state| {
            let layout = Self::layout(shape, n, i);
            let mut mags = vec![0; layout.len()];
            let mut enc = Encoder::new();
            let sound = code_band(
                state,
                tables,
                tables.order(),
                &mut enc,
                layout,
                scale_idx,
                symbols,
                reference.map(|r| &r[i][..]),
                &mut mags,
            );
            // Magnitudes were checked before.
            let data = sound.then(|| enc.finish());
            Ok((data.ok_or(EntropyError::Parity)?, mags))
        });
        let (out, mags): (Vec<_>, Vec<_>) = parts
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .unzip();
        self.magnitudes = Some(mags.into());
        Ok(out)
    }

    /// Reads the latent from its streams.
    ///
    /// # Errors
    /// [`EntropyError::Shape`] when a length or the number of streams does not fit, others when the
    /// data is cut or damaged; the state is then spoilt.
    pub fn decode_y(
        &mut self,
        streams: &[&[u8]],
        scale_idx: &[u8],
    ) -> Result<SparseSymbols, EntropyError> {
        self.check_scales(scale_idx)?;
        if streams.len() != self.bands.len() {
            return Err(EntropyError::Shape {
                what: "a frame has another number of y streams than its key frame",
            });
        }
        let (tables, shape, reference) = (&*self.tables, self.y_shape, self.magnitudes.as_deref());
        let n = self.bands.len();
        let parts = Self::each_band(&mut self.bands, |i, state| {
            let layout = Self::layout(shape, n, i);
            let mut mags = vec![0; layout.len()];
            let mut out = Vec::with_capacity(streams[i].len().min(1 << 16));
            let mut dec = Decoder::new(streams[i]);
            let sound = code_band(
                state,
                tables,
                tables.order(),
                &mut dec,
                layout,
                scale_idx,
                &mut out,
                reference.map(|r| &r[i][..]),
                &mut mags,
            );
            dec.finish()?;
            if sound {
                Ok((out, mags))
            } else {
                Err(EntropyError::SymbolRange)
            }
        });
        let (bands, mags): (Vec<_>, Vec<_>) = parts
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .unzip();
        self.magnitudes = Some(mags.into());
        Ok(SparseSymbols { shape, bands })
    }

    /// Where the bits of a hyper-latent went, given the state before it was coded: by place, row
    /// after row, in 1/256 bit. Changes nothing.
    ///
    /// # Errors
    /// [`EntropyError::Shape`] when the length is not that of [`z_shape`](Self::z_shape).
    pub fn spent_z(&self, z: &[i8]) -> Result<Vec<u64>, EntropyError> {
        self.check("z has another size than its frame", z.len(), self.z_shape)?;
        let places = self.z_shape.height * self.z_shape.width;
        let at = Cell::new(0);
        let mut meter = PlaceMeter::new(&at, places);
        self.hyper.clone().code(
            &mut meter,
            self.z_shape,
            &mut z.to_vec(),
            self.z.as_deref(),
            |symbol| at.set(symbol % places),
        );
        Ok(meter.bits)
    }

    /// Where the bits of a latent went, given the state before it was coded (with `z` read or
    /// written). Changes nothing.
    ///
    /// # Errors
    /// [`EntropyError::Shape`] and [`EntropyError::ScaleIndex`] when `scale_idx` or the symbols are
    /// another frame's.
    pub fn spent_y(
        &self,
        scale_idx: &[u8],
        symbols: &SparseSymbols,
    ) -> Result<LatentBits, EntropyError> {
        self.check_scales(scale_idx)?;
        if symbols.shape != self.y_shape {
            return Err(EntropyError::Shape {
                what: "y has another size than its frame",
            });
        }
        let (tables, shape, reference) = (&*self.tables, self.y_shape, self.magnitudes.as_deref());
        let (mut bands, n) = (self.bands.clone(), self.bands.len());
        let dense = symbols.to_dense();
        let parts = Self::each_band(&mut bands, |i, state| {
            let layout = Self::layout(shape, n, i);
            let at = Cell::new(layout.first_row * shape.width);
            let mut meter = Meter {
                at: &at,
                bits: LatentBits::new(shape),
            };
            let symbols = Watched {
                symbols: &dense,
                at: &at,
            };
            code_band(
                state,
                tables,
                tables.order(),
                &mut meter,
                layout,
                scale_idx,
                symbols,
                reference.map(|r| &r[i][..]),
                &mut vec![0; layout.len()],
            );
            meter.bits
        });
        let mut all = LatentBits::new(shape);
        parts.iter().for_each(|part| all.add(part));
        let ordered = tables
            .order()
            .iter()
            .map(|&c| all.by_channel[usize::from(c)]);
        all.by_channel = ordered.collect();
        Ok(all)
    }

    /// The channels that each stream of the latent begins with, in the order of coding.
    pub fn first_channels(&self) -> &[u16] {
        let order = self.tables.order();
        &order[..order.len().min(GROUP)]
    }

    /// Whether a stream of the latent ends within its [first channels](Self::first_channels): such
    /// a frame is damaged whatever the scale indices of the other channels are.
    ///
    /// `scale_idx`: of these channels, `[first channels, H/16, W/16]`. For frames that inherit
    /// nothing.
    ///
    /// # Errors
    /// [`EntropyError::Shape`] when a length or the number of streams does not fit, or where
    /// something was inherited.
    pub fn starves(&self, streams: &[&[u8]], scale_idx: &[u8]) -> Result<bool, EntropyError> {
        let shape = LatentShape {
            channels: self.first_channels().len(),
            ..self.y_shape
        };
        self.check(
            "scale_idx has another size than its frame",
            scale_idx.len(),
            shape,
        )?;
        if streams.len() != self.bands.len() || self.magnitudes.is_some() {
            return Err(EntropyError::Shape {
                what: "only frames that inherit nothing can be looked into, with all streams of y",
            });
        }
        let order: Vec<u16> = (0..shape.channels as u16).collect();
        let n = self.bands.len();
        Ok(streams.iter().enumerate().any(|(i, stream)| {
            let layout = Self::layout(shape, n, i);
            let mut dec = Decoder::new(stream);
            code_band(
                &mut self.bands[i].clone(),
                &self.tables,
                &order,
                &mut dec,
                layout,
                scale_idx,
                &mut Vec::new(),
                None,
                &mut vec![0; layout.len()],
            );
            dec.overrun()
        }))
    }

    /// Runs `f` for each band, each on its own thread when there are several.
    fn each_band<T: Send>(
        bands: &mut [BandState],
        f: impl Fn(usize, &mut BandState) -> T + Sync,
    ) -> Vec<T> {
        let bands: Vec<_> = bands.iter_mut().map(Mutex::new).collect();
        parallel::map(bands.len(), bands.len(), |i| {
            // Each band is taken once.
            let mut band = bands[i].lock().unwrap_or_else(PoisonError::into_inner);
            f(i, &mut band)
        })
    }

    /// What symbols cost in this state, for an encoder that weighs rate against distortion.
    pub fn costs(&self) -> SymbolCosts {
        let row = |bins: &[super::mix::Counter; BINS]| {
            let mut row = [0u16; BINS + 1];
            let mut sum = 0;
            for m in 0..BINS {
                let p = bins[m].p1().max(super::range::MIN_P);
                row[m] = (sum + bit_cost(p, false) + if m > 0 { 256 } else { 0 }).min(65535) as u16;
                sum += bit_cost(p, true);
            }
            row[BINS] = (sum + 256).min(65535) as u16;
            row
        };
        let near = &self.bands[0].near;
        // Not coded at index 0.
        let none = std::iter::repeat_n([0; BINS + 1], NEAR_CLASSES);
        let coded = (1..SCALES).flat_map(|k| {
            let class = scale_class(k as u8);
            near[class * NEAR_CLASSES..][..NEAR_CLASSES].iter().map(row)
        });
        SymbolCosts(none.chain(coded).collect())
    }
}

/// The symbols of a frame as they were decoded: those other than zero, which are few.
#[derive(Clone, Debug)]
pub struct SparseSymbols {
    shape: LatentShape,
    bands: Vec<Vec<Symbol>>,
}

impl SparseSymbols {
    /// The latent's shape.
    pub fn shape(&self) -> LatentShape {
        self.shape
    }

    /// All symbols other than zero, each once.
    pub fn iter(&self) -> impl Iterator<Item = &Symbol> {
        self.bands.iter().flatten()
    }

    /// All symbols, `[channels, height, width]`.
    pub fn to_dense(&self) -> Vec<i16> {
        let mut out = vec![0; self.shape.len()];
        for symbol in self.iter() {
            out[symbol.at as usize] = symbol.value;
        }
        out
    }
}

/// Cost of coding magnitudes (with their signs) per scale index and class of the neighbours, in
/// 1/256 bit.
#[derive(Clone, Debug)]
pub struct SymbolCosts(Vec<[u16; BINS + 1]>);

impl SymbolCosts {
    /// Cost of a symbol of this magnitude at scale index `k`, with neighbours of this class; 0 at
    /// index 0, where nothing is coded.
    #[inline]
    pub fn cost(&self, k: u8, near: usize, magnitude: u32) -> u32 {
        let row = &self.0[(usize::from(k) & (SCALES - 1)) * NEAR_CLASSES + near];
        if magnitude < BINS as u32 {
            u32::from(row[magnitude as usize])
        } else {
            // The escape: an Exp-Golomb code of order 0.
            let bits = 31 - (magnitude - BINS as u32 + 1).leading_zeros();
            u32::from(row[BINS]) + (2 * bits + 1) * 256
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HIDING_CHANNELS, HIDING_SUM};
    use super::*;

    const SHAPE: LatentShape = LatentShape {
        channels: 24,
        height: 9,
        width: 13,
    };

    struct Rng(u64);
    impl Rng {
        fn next(&mut self) -> u32 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as u32
        }
        fn unit(&mut self) -> f64 {
            (f64::from(self.next()) + 0.5) / 4_294_967_296.0
        }
        fn laplace(&mut self, sigma: f64) -> i16 {
            let u = self.unit() - 0.5;
            let v = -sigma / 2f64.sqrt() * (1.0 - 2.0 * u.abs()).ln() * u.signum();
            v.round().clamp(-2047.0, 2047.0) as i16
        }
    }

    /// Gives symbols the signs that are not coded; channels come in the reverse order. Returns how
    /// many those are.
    fn fit_signs(shape: LatentShape, k: &[u8], s: &mut [i16]) -> u32 {
        let mut hidden = 0;
        let (positions, channels) = (shape.height * shape.width, shape.channels);
        let order: Vec<usize> = (0..channels).rev().collect();
        for p in 0..positions {
            for group in order.chunks(HIDING_CHANNELS) {
                let coded = |at: &usize| k[*at] > 0 && s[*at] != 0;
                let coded: Vec<usize> = group
                    .iter()
                    .map(|c| c * positions + p)
                    .filter(coded)
                    .collect();
                let sum: u32 = coded
                    .iter()
                    .map(|&at| u32::from(s[at].unsigned_abs()))
                    .sum();
                if let Some(&first) = coded.first()
                    && sum >= HIDING_SUM
                {
                    s[first] = s[first].abs() * if sum % 2 == 1 { -1 } else { 1 };
                    hidden += 1;
                }
            }
        }
        hidden
    }

    fn sigma(k: usize) -> f64 {
        0.1 * 2f64.powf(k as f64 / 6.0)
    }

    /// Tables of a rounded Laplace distribution of exactly the scales that the indices name.
    fn tables(shape: LatentShape) -> Arc<SymbolTables> {
        let tail = |k: usize, j: usize| (-(j as f64 + 0.5) * 2f64.sqrt() / sigma(k)).exp();
        let y: Vec<u16> = (0..SCALES * BINS)
            .map(|i| {
                let (k, j) = (i / BINS, i % BINS);
                let p = tail(k, j) / if j == 0 { 1.0 } else { tail(k, j - 1) };
                (p * 65536.0).clamp(1.0, 65535.0) as u16
            })
            .collect();
        let order: Vec<u16> = (0..shape.channels as u16).rev().collect();
        Arc::new(SymbolTables::new(&y, &[2000; 6 * BINS], &order).unwrap())
    }

    fn contexts(shape: LatentShape, streams: usize) -> SymbolContexts {
        SymbolContexts::new(tables(shape), shape.height, shape.width, streams).unwrap()
    }

    fn frame(rng: &mut Rng, shape: LatentShape, mismatch: f64, skip: u32) -> (Vec<u8>, Vec<i16>) {
        // Scales vary smoothly over the picture; the truth deviates from what is signalled by a
        // field of its own.
        let phase = rng.unit() * 6.0;
        let (k, mut s): (Vec<u8>, Vec<i16>) = (0..shape.len())
            .map(|i| {
                let (x, y) = (
                    (i % shape.width) as f64,
                    (i / shape.width % shape.height) as f64,
                );
                let c = i / shape.width / shape.height;
                let k =
                    8.0 + 6.0 * (x / 7.0 + phase).sin() + 6.0 * (y / 5.0).cos() + c as f64 % 17.0;
                let k = if rng.next() % 100 < skip {
                    0
                } else {
                    k.max(1.0) as u8
                };
                let deviation = mismatch * ((x / 3.0 - phase).sin() + (y / 3.0).sin());
                let s = if k == 0 {
                    0
                } else {
                    rng.laplace(sigma(k.into()) * 2f64.powf(deviation))
                };
                (k, s)
            })
            .unzip();
        fit_signs(shape, &k, &mut s);
        (k, s)
    }

    #[test]
    fn bits_of_z_are_counted_where_they_were_spent() {
        let mut enc = contexts(SHAPE, 1);
        let shape = enc.z_shape();
        let places = shape.height * shape.width;
        let mut rng = Rng(7);
        for t in 0..3 {
            let mut z: Vec<i8> = (0..shape.len())
                .map(|_| (rng.next() % 7) as i8 - 3)
                .collect();
            let loud = places - 1;
            (0..shape.channels).for_each(|c| z[c * places + loud] = 100);
            let before = enc.clone();
            let written = 8 * enc.encode_z(&z).unwrap().len();
            let spent = before.spent_z(&z).unwrap();
            assert_eq!(spent.len(), places);
            let counted = spent.iter().sum::<u64>() as f64 / 256.0;
            assert!(
                (counted - written as f64).abs() < 0.01 * written as f64 + 16.0,
                "frame {t}: {counted} bits counted, {written} written"
            );
            let most = (0..places).max_by_key(|&at| spent[at]);
            assert_eq!(most, Some(loud), "frame {t}: {spent:?}");
        }
        assert!(enc.spent_z(&[0]).is_err());
    }

    #[test]
    fn bits_are_counted_where_they_were_spent() {
        for streams in [1, 3] {
            let mut rng = Rng(99);
            let (mut enc, mut dec) = (contexts(SHAPE, streams), contexts(SHAPE, streams));
            let places = SHAPE.height * SHAPE.width;
            for t in 0..3 {
                let (k, mut s) = frame(&mut rng, SHAPE, 0.5, 40);
                // One place and one channel that cost far more than the others.
                let loud = (5 * SHAPE.height + 4) * SHAPE.width + 6;
                s[loud] = if k[loud] > 0 { 2000 } else { 0 };
                fit_signs(SHAPE, &k, &mut s);
                let z = vec![0; enc.z_shape().len()];
                dec.decode_z(&enc.encode_z(&z).unwrap()).unwrap();
                let data = enc.encode_y(&k, &s).unwrap();
                let before = dec.clone();
                let parts: Vec<&[u8]> = data.iter().map(|d| &d[..]).collect();
                let symbols = dec.decode_y(&parts, &k).unwrap();
                let spent = before.spent_y(&k, &symbols).unwrap();
                let written: usize = data.iter().map(|d| 8 * d.len()).sum();
                let counted = spent.sum() as f64 / 256.0;
                assert!(
                    (counted - written as f64).abs() < 0.01 * written as f64 + 16.0 * 3.0,
                    "frame {t}: {counted} bits counted, {written} written"
                );
                assert_eq!(spent.sum(), spent.by_place.iter().sum::<u64>());
                assert_eq!((spent.by_channel.len(), spent.by_place.len()), (24, places));
                if k[loud] > 0 {
                    let most = (0..places).max_by_key(|&at| spent.by_place[at]);
                    assert_eq!(most, Some(loud % places));
                }
                // Channels in which nothing is coded take nothing.
                for (rank, &bits) in spent.by_channel.iter().enumerate() {
                    let c = SHAPE.channels - 1 - rank;
                    let coded = k[c * places..][..places].iter().any(|&k| k > 0);
                    assert!(coded || bits == 0);
                }
                assert_eq!(
                    before.spent_y(&k, &symbols).unwrap(),
                    spent,
                    "nothing changed"
                );
            }
        }
    }

    #[test]
    fn frames_round_trip_with_any_number_of_streams() {
        for streams in 1..=usize::from(MAX_Y_STREAMS) {
            let mut rng = Rng(streams as u64 + 77);
            let (mut enc, mut dec) = (contexts(SHAPE, streams), contexts(SHAPE, streams));
            for t in 0..4 {
                let (k, mut s) = frame(&mut rng, SHAPE, 0.5, 40);
                // Extremes and escapes.
                for (i, v) in [2047, -2047, 15, -15, 14, 16, 1000].into_iter().enumerate() {
                    let at = i * 211 + t;
                    s[at] = if k[at] > 0 { v } else { 0 };
                }
                fit_signs(SHAPE, &k, &mut s);
                let z: Vec<i8> = (0..enc.z_shape().len())
                    .map(|_| if t == 2 { 0 } else { rng.laplace(3.0) as i8 })
                    .collect();
                let data = enc.encode_z(&z).unwrap();
                assert_eq!(&*dec.decode_z(&data).unwrap(), &z);
                let data = enc.encode_y(&k, &s).unwrap();
                assert_eq!(data.len(), streams);
                let parts: Vec<&[u8]> = data.iter().map(|d| &d[..]).collect();
                assert_eq!(dec.decode_y(&parts, &k).unwrap().to_dense(), s);
            }
        }
    }

    #[test]
    fn there_may_be_more_streams_than_rows() {
        let shape = LatentShape {
            channels: 5,
            height: 1,
            width: 3,
        };
        let (k, mut s) = (vec![20; 15], (0..15).map(|v| v - 7).collect::<Vec<i16>>());
        fit_signs(shape, &k, &mut s);
        let data = contexts(shape, 8).encode_y(&k, &s).unwrap();
        let parts: Vec<&[u8]> = data.iter().map(|d| &d[..]).collect();
        assert_eq!(parts.len(), 8);
        let decoded = contexts(shape, 8).decode_y(&parts, &k).unwrap();
        assert_eq!(decoded.to_dense(), s);
    }

    #[test]
    fn z_round_trips_at_its_limits() {
        let (mut enc, mut dec) = (contexts(SHAPE, 1), contexts(SHAPE, 1));
        for step in [1usize, 3, 29, 255] {
            let z: Vec<i8> = (0..enc.z_shape().len())
                .map(|i| ((i * step) % 255) as i32 as i16 - 127)
                .map(|v| v as i8)
                .collect();
            let data = enc.encode_z(&z).unwrap();
            assert_eq!(&*dec.decode_z(&data).unwrap(), &z);
        }
    }

    #[test]
    fn nothing_to_say_takes_next_to_nothing() {
        let shape = LatentShape {
            channels: 24,
            height: 23,
            width: 40,
        };
        let mut ctx = contexts(shape, 1);
        let z = vec![0; ctx.z_shape().len()];
        assert!(ctx.encode_z(&z).unwrap().len() <= 1);
        assert_eq!(ctx.encode_z(&z).unwrap().len(), 0);
        assert_eq!(
            ctx.encode_y(&vec![0; shape.len()], &vec![0; shape.len()])
                .unwrap()[0]
                .len(),
            0
        );
    }

    #[test]
    fn only_streams_that_are_cut_starve() {
        let shape = LatentShape {
            channels: 48,
            height: 40,
            width: 24,
        };
        let mut rng = Rng(5);
        for streams in [1, 3] {
            let (k, s) = frame(&mut rng, shape, 0.3, 30);
            let fresh = contexts(shape, streams);
            let plane = shape.height * shape.width;
            let first: Vec<u8> = fresh
                .first_channels()
                .iter()
                .flat_map(|&c| k[usize::from(c) * plane..][..plane].to_vec())
                .collect();
            assert_eq!(first.len(), GROUP * plane);
            let data = contexts(shape, streams).encode_y(&k, &s).unwrap();
            let parts: Vec<&[u8]> = data.iter().map(|d| &d[..]).collect();
            assert_eq!(fresh.starves(&parts, &first), Ok(false));
            for i in 0..streams {
                // A third of the channels takes about a third of the bytes.
                for len in [0, 1, 9, parts[i].len() / 8] {
                    let mut cut = parts.clone();
                    cut[i] = &cut[i][..len];
                    assert_eq!(fresh.starves(&cut, &first), Ok(true), "{len} bytes");
                    assert!(contexts(shape, streams).decode_y(&cut, &k).is_err());
                }
                let mut cut = parts.clone();
                cut[i] = &cut[i][..parts[i].len() - 9];
                assert_eq!(
                    fresh.starves(&cut, &first),
                    Ok(false),
                    "it is not seen so soon"
                );
            }
            assert!(fresh.starves(&parts, &first[1..]).is_err());
            assert!(fresh.starves(&parts[1..], &first).is_err());
        }
    }

    #[test]
    fn skipped_places_are_not_looked_at() {
        let mut rng = Rng(3);
        let (k, s) = frame(&mut rng, SHAPE, 0.0, 50);
        let noisy: Vec<i16> = s
            .iter()
            .zip(&k)
            .map(|(&s, &k)| if k == 0 { 99 } else { s })
            .collect();
        assert_eq!(
            contexts(SHAPE, 2).encode_y(&k, &s),
            contexts(SHAPE, 2).encode_y(&k, &noisy)
        );
    }

    /// Bits per the tables themselves, not adapted.
    fn ideal(k: &[u8], s: &[i16]) -> f64 {
        let tail = |k: u8, j: f64| (-j * 2f64.sqrt() / sigma(k.into())).exp();
        k.iter()
            .zip(s)
            .filter(|(k, _)| **k > 0)
            .map(|(&k, &s)| {
                let m = f64::from(s.unsigned_abs());
                let p = if m == 0.0 {
                    1.0 - tail(k, 0.5)
                } else {
                    (tail(k, m - 0.5) - tail(k, m + 0.5)) / 2.0
                };
                -p.max(1e-12).log2()
            })
            .sum()
    }

    #[test]
    fn mixing_costs_little_on_perfect_scales_and_wins_on_wrong_ones() {
        let shape = LatentShape {
            channels: 96,
            height: 24,
            width: 40,
        };
        let mut gains = Vec::new();
        for mismatch in [0.0, 0.5, 1.0] {
            let mut rng = Rng(1234);
            let mut ctx = contexts(shape, 1);
            let (mut coded, mut expected) = (0.0, 0.0);
            for _ in 0..3 {
                let (k, s) = frame(&mut rng, shape, mismatch, 30);
                coded += ctx.encode_y(&k, &s).unwrap()[0].len() as f64 * 8.0;
                expected += ideal(&k, &s);
            }
            gains.push(100.0 * (1.0 - coded / expected));
        }
        println!("gain over fixed tables by mismatch: {gains:.2?} %");
        assert!(gains[0] > -0.5, "{gains:?}");
        assert!(gains[1] > 1.0 && gains[2] > 8.0, "{gains:?}");
    }

    #[test]
    fn costs_match_what_is_written() {
        let shape = LatentShape {
            channels: 48,
            height: 24,
            width: 40,
        };
        let mut rng = Rng(42);
        let mut ctx = contexts(shape, 1);
        let (k, mut s) = frame(&mut rng, shape, 0.0, 30);
        let costs = ctx.costs();
        let estimate: f64 = k
            .iter()
            .zip(&s)
            .map(|(&k, &s)| f64::from(costs.cost(k, 0, s.unsigned_abs().into())) / 256.0)
            .sum();
        let estimate = estimate - f64::from(fit_signs(shape, &k, &mut s));
        let bits = ctx.encode_y(&k, &s).unwrap()[0].len() as f64 * 8.0;
        assert!(
            (estimate / bits - 1.0).abs() < 0.02,
            "estimated {estimate}, written {bits}"
        );
        assert_eq!(costs.cost(0, 0, 0), 0);
    }

    #[test]
    fn damage_gives_errors_or_other_symbols_but_no_panic() {
        let mut rng = Rng(8);
        let (k, s) = frame(&mut rng, SHAPE, 0.3, 30);
        let good = contexts(SHAPE, 2).encode_y(&k, &s).unwrap();
        let mut failures = 0;
        for _ in 0..400 {
            let mut bad = good.clone();
            for _ in 0..1 + rng.next() % 4 {
                let part = &mut bad[rng.next() as usize % 2];
                let at = rng.next() as usize % part.len();
                match rng.next() % 3 {
                    0 => part[at] ^= 1 << (rng.next() % 8),
                    1 => part.truncate(at.max(1)),
                    _ => part[at..].fill(0xff),
                }
            }
            let parts: Vec<&[u8]> = bad.iter().map(|d| &d[..]).collect();
            match contexts(SHAPE, 2).decode_y(&parts, &k) {
                Ok(out) => assert!(out.iter().all(|s| s.value.abs() <= 2047)),
                Err(_) => failures += 1,
            }
            let _ = contexts(SHAPE, 1).decode_z(parts[0]);
        }
        assert!(failures > 100, "{failures}");
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let mut ctx = contexts(SHAPE, 2);
        assert!(matches!(
            ctx.encode_z(&[0]),
            Err(EntropyError::Shape { .. })
        ));
        assert!(matches!(
            ctx.encode_y(&[0], &[0]),
            Err(EntropyError::Shape { .. })
        ));
        let k = vec![1; SHAPE.len()];
        assert!(matches!(
            ctx.decode_y(&[&[]], &k),
            Err(EntropyError::Shape { .. })
        ));
        assert_eq!(
            ctx.encode_y(&vec![64; SHAPE.len()], &vec![0; SHAPE.len()]),
            Err(EntropyError::ScaleIndex)
        );
        let mut s = vec![0; SHAPE.len()];
        s[5] = 2048;
        assert_eq!(ctx.encode_y(&k, &s), Err(EntropyError::SymbolRange));
        let t = tables(SHAPE);
        assert!(SymbolContexts::new(t.clone(), 0, 5, 1).is_err());
        assert!(SymbolContexts::new(t.clone(), 5, 5, 9).is_err());
        assert!(SymbolTables::new(&[1; 5], &[1; BINS], &[0]).is_err());
        assert!(SymbolTables::new(&[1; SCALES * BINS], &[1; 7], &[0]).is_err());
        assert!(SymbolTables::new(&[1; SCALES * BINS], &[1; BINS], &[0, 0]).is_err());
    }
}
