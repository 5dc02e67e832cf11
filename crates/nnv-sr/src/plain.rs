// SPDX-License-Identifier: MPL-2.0
//! Scaling by the plain kernel, and painting what a network gave over it.

use std::ops::Range;

use smallvec::SmallVec;

use super::kernel::{Kernel, RowScaler};
use super::layout::{Band, Layout, LayoutError, Planes, PlanesMut};
use super::rows::{self, Unit};
use nnv_cpu::parallel;

/// Bands per thread: so that one slow thread does not make all others wait for long.
const BANDS_PER_THREAD: usize = 2;

/// Scales pictures of one layout by a whole number with the plain kernel.
#[derive(Debug)]
pub struct PlainScaler {
    input: Layout,
    output: Layout,
    scale: usize,
    threads: usize,
    full: Kernel,
    subsampled_columns: Kernel,
    subsampled_rows: Kernel,
    unit: Unit,
}

/// What a network gave for a rectangle of the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Painting<'a> {
    /// From the first sample of the rectangle on.
    pub values: &'a [f32],
    /// Values from one row to the next.
    pub stride: usize,
    /// The rectangle's first column and row in the output, and its width.
    pub x: usize,
    pub y: usize,
    pub width: usize,
    /// Within 0..=1: how much of the plain kernel's result is replaced.
    pub strength: f32,
}

impl Painting<'_> {
    fn row(&self, y: usize) -> &[f32] {
        &self.values[(y - self.y) * self.stride..][..self.width]
    }
}

/// Some rows of a plane to fill.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub input: &'a Planes<'a>,
    pub plane: usize,
    pub band: Band<'a>,
    /// Only these columns are written then.
    pub painting: Option<Painting<'a>>,
}

impl PlainScaler {
    /// A scaler for pictures of the layout `input`; `threads` is 0 for as many as there are
    /// processors.
    ///
    /// # Panics
    /// When the scale is 0.
    pub fn new(input: Layout, scale: usize, threads: u32) -> Self {
        assert!(scale > 0, "a picture cannot be scaled to nothing");
        Self {
            input,
            output: input.scaled(scale),
            scale,
            threads: parallel::resolve(threads),
            full: Kernel::new(scale, false),
            subsampled_columns: Kernel::new(scale, input.cosited_columns),
            subsampled_rows: Kernel::new(scale, input.cosited_rows),
            unit: Unit::new(input.sample(), input.full_range),
        }
    }

    /// Layout of the pictures that come in.
    pub fn input(&self) -> Layout {
        self.input
    }

    /// Layout of the pictures that go out.
    pub fn output(&self) -> Layout {
        self.output
    }

    /// Scales a picture.
    ///
    /// # Errors
    /// [`LayoutError::Mismatch`].
    pub fn scale(&self, input: &Planes<'_>, output: &mut PlanesMut<'_>) -> Result<(), LayoutError> {
        self.check(input, output)?;
        self.run(self.tasks(input, output, 0..self.input.planes()));
        Ok(())
    }

    pub(super) fn check(
        &self,
        input: &Planes<'_>,
        output: &PlanesMut<'_>,
    ) -> Result<(), LayoutError> {
        if input.layout() == self.input && output.layout() == self.output {
            Ok(())
        } else {
            Err(LayoutError::Mismatch)
        }
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    pub(super) fn unit(&self) -> Unit {
        self.unit
    }

    /// How many bands to cut a picture into.
    pub(super) fn bands(&self) -> usize {
        match self.threads {
            1 => 1,
            n => n * BANDS_PER_THREAD,
        }
    }

    /// Whatever is to be done for some planes.
    pub(super) fn tasks<'a>(
        &self,
        input: &'a Planes<'a>,
        output: &'a mut PlanesMut<'_>,
        planes: Range<usize>,
    ) -> Vec<Task<'a>> {
        let bands = output.bands(planes, self.bands());
        let task = |(plane, band)| Task {
            input,
            plane,
            band,
            painting: None,
        };
        bands.map(task).collect()
    }

    pub(super) fn run(&self, tasks: Vec<Task<'_>>) {
        parallel::for_each(self.threads, tasks, |task| self.fill(task));
    }

    /// How far luma of `output` is from what the plain kernel makes of `input`: row after row, in
    /// 8-bit samples.
    pub(super) fn change(&self, input: &Planes<'_>, output: &PlanesMut<'_>) -> Vec<f32> {
        let (width, height) = (self.output.width(), self.output.height());
        let shape = self.input.shape(0);
        let (sample, step) = (shape.sample, shape.step());
        let made: Vec<&[u8]> = output.key_rows().collect();
        let mut change = vec![0.0; width * height];
        let rows = height.div_ceil(self.bands());
        let bands = change.chunks_mut(rows * width).enumerate().collect();
        parallel::for_each(self.threads, bands, |(band, part)| {
            let mut scalers = self.scalers(0);
            let mut values = vec![0.0; width];
            let weights: &[f32] = match self.input.is_rgb() {
                true => &rows::LUMA,
                false => &[1.0],
            };
            for (i, change) in part.chunks_mut(width).enumerate() {
                let y = band * rows + i;
                for (c, (scaler, weight)) in scalers.iter_mut().zip(weights).enumerate() {
                    let from = c * sample.bytes();
                    scaler.row(y, |y, out| {
                        rows::load(sample, step, &input.row(0, y)[from..], out);
                    });
                    rows::load(sample, step, &made[y][from..], &mut values);
                    let both = values.iter().zip(scaler.last());
                    for (change, (value, plain)) in change.iter_mut().zip(both) {
                        let plain = plain.clamp(0.0, sample.max()).round_ties_even();
                        *change += weight * (value - plain) / sample.per_step();
                    }
                }
            }
        });
        change
    }

    fn scalers(&self, plane: usize) -> SmallVec<[RowScaler<'_>; 3]> {
        let shape = self.input.shape(plane);
        let (columns, lines) = if shape.subsampled {
            (&self.subsampled_columns, &self.subsampled_rows)
        } else {
            (&self.full, &self.full)
        };
        let out_width = self.output.shape(plane).width;
        (0..shape.components)
            .map(|_| RowScaler::new(columns, lines, shape.width, shape.height, out_width))
            .collect()
    }

    fn fill(&self, task: Task<'_>) {
        let Task {
            input,
            plane,
            mut band,
            painting,
        } = task;
        if self.scale == 1 && painting.is_none() {
            for i in 0..band.rows {
                let row = input.row(plane, band.first + i);
                band.row_mut(i).copy_from_slice(row);
            }
            return;
        }
        let shape = self.input.shape(plane);
        let (sample, step) = (shape.sample, shape.step());
        if let Some(p) = painting
            && p.strength >= 1.0
            && !self.input.is_rgb()
        {
            // Nothing of the plain kernel would remain.
            let mut values = vec![0.0; p.width];
            for i in 0..band.rows {
                rows::from_network(p.row(band.first + i), self.unit, &mut values);
                rows::store(sample, step, &values, &mut band.row_mut(i)[p.x * step..]);
            }
            return;
        }

        let out_width = self.output.shape(plane).width;
        let mut scalers = self.scalers(plane);
        for i in 0..band.rows {
            let y = band.first + i;
            for (c, scaler) in scalers.iter_mut().enumerate() {
                scaler.row(y, |y, out| {
                    rows::load(
                        sample,
                        step,
                        &input.row(plane, y)[c * sample.bytes()..],
                        out,
                    );
                });
            }
            let wanted = match &painting {
                None => 0..out_width,
                Some(p) => {
                    let wanted = p.x..p.x + p.width;
                    self.paint(p, y, &mut scalers, wanted.clone());
                    wanted
                }
            };
            for (c, scaler) in scalers.iter_mut().enumerate() {
                let row = &mut band.row_mut(i)[wanted.start * step + c * sample.bytes()..];
                rows::store(sample, step, &scaler.last()[wanted.clone()], row);
            }
        }
    }

    fn paint(
        &self,
        painting: &Painting<'_>,
        y: usize,
        scalers: &mut [RowScaler<'_>],
        wanted: Range<usize>,
    ) {
        let (values, strength) = (painting.row(y), painting.strength);
        match scalers {
            [luma] => rows::blend(&mut luma.last()[wanted], values, self.unit, strength),
            [r, g, b] => rows::blend_rgb(
                [r, g, b].map(|scaler| &mut scaler.last()[wanted.clone()]),
                values,
                self.unit,
                strength,
            ),
            _ => unreachable!("networks make luma alone or all of RGB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    /// Sample values that tell places apart.
    fn noise(len: usize, seed: usize) -> Vec<u8> {
        (0..len)
            .map(|i| ((i * 7919 + seed * 104_729) ^ (i >> 3)) as u8)
            .collect()
    }

    fn strides(layout: Layout, extra: usize) -> Vec<usize> {
        (0..layout.planes())
            .map(|p| layout.shape(p).row_bytes() + extra)
            .collect()
    }

    fn scaled(layout: Layout, scale: usize, threads: u32, extra: usize) -> Vec<Vec<u8>> {
        let scaler = PlainScaler::new(layout, scale, threads);
        let memory = |layout: Layout, extra: usize| -> Vec<usize> {
            let strides = strides(layout, extra);
            let rows = (0..layout.planes()).map(|p| layout.shape(p).height);
            strides.iter().zip(rows).map(|(s, h)| s * h).collect()
        };
        // The same samples whatever the stride.
        let tight: Vec<_> = memory(layout, 0)
            .iter()
            .enumerate()
            .map(|(p, n)| noise(*n, p))
            .collect();
        let input: Vec<Vec<u8>> = tight
            .iter()
            .enumerate()
            .map(|(p, plane)| {
                let row = layout.shape(p).row_bytes();
                plane
                    .chunks(row)
                    .flat_map(|r| r.iter().copied().chain(vec![0xee; extra]))
                    .collect()
            })
            .collect();
        let mut output: Vec<Vec<u8>> = memory(scaler.output(), extra)
            .iter()
            .map(|n| vec![0xcc; *n])
            .collect();
        let planes: Vec<&[u8]> = input.iter().map(|p| &p[..]).collect();
        let input = Planes::new(layout, &planes, &strides(layout, extra)).unwrap();
        let out_strides = strides(scaler.output(), extra);
        let mut picture = PlanesMut::new(
            scaler.output(),
            output.iter_mut().map(|p| &mut p[..]).collect(),
            &out_strides,
        )
        .unwrap();
        scaler.scale(&input, &mut picture).unwrap();
        // Padding stays as it was, and is taken off.
        output
            .iter()
            .zip(out_strides)
            .map(|(plane, stride)| {
                plane
                    .chunks(stride)
                    .flat_map(|row| {
                        assert!(row[stride - extra..].iter().all(|b| *b == 0xcc));
                        row[..stride - extra].to_vec()
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn threads_and_strides_do_not_matter() {
        for format in [
            Format::I420,
            Format::Nv12,
            Format::I42010Le,
            Format::P01010Le,
            Format::Y444,
            Format::Rgb,
            Format::Gray8,
        ] {
            for (width, height) in [(1, 1), (5, 3), (16, 9), (67, 41)] {
                for scale in 1..=4 {
                    let layout = Layout::new(format, width, height).unwrap();
                    let once = scaled(layout, scale, 1, 0);
                    assert_eq!(once, scaled(layout, scale, 3, 5), "{layout:?} x{scale}");
                }
            }
        }
    }

    #[test]
    fn interleaved_chroma_is_planar_chroma() {
        let planar = Layout::new(Format::I420, 6, 4).unwrap();
        let packed = Layout::new(Format::Nv12, 6, 4).unwrap();
        let (u, v) = (noise(6, 1), noise(6, 2));
        let uv: Vec<u8> = u.iter().zip(&v).flat_map(|(u, v)| [*u, *v]).collect();
        let y = noise(24, 3);
        let scale = |layout: Layout, planes: &[&[u8]]| {
            let scaler = PlainScaler::new(layout, 2, 1);
            let mut out: Vec<Vec<u8>> = (0..layout.planes())
                .map(|p| {
                    let shape = scaler.output().shape(p);
                    vec![0; shape.row_bytes() * shape.height]
                })
                .collect();
            let mut picture = PlanesMut::new(
                scaler.output(),
                out.iter_mut().map(|p| &mut p[..]).collect(),
                &strides(scaler.output(), 0),
            )
            .unwrap();
            let input = Planes::new(layout, planes, &strides(layout, 0)).unwrap();
            scaler.scale(&input, &mut picture).unwrap();
            out
        };
        let a = scale(planar, &[&y, &u, &v]);
        let b = scale(packed, &[&y, &uv]);
        assert_eq!(a[0], b[0]);
        let joined: Vec<u8> = a[1].iter().zip(&a[2]).flat_map(|(u, v)| [*u, *v]).collect();
        assert_eq!(joined, b[1]);
    }

    #[test]
    fn another_layout_is_refused() {
        let layout = Layout::new(Format::Gray8, 2, 2).unwrap();
        let other = Layout::new(Format::Gray8, 1, 2).unwrap();
        let scaler = PlainScaler::new(layout, 2, 1);
        let mut out = [0; 16];
        let input = Planes::new(other, &[&[0; 4]], &[2]).unwrap();
        let mut output = PlanesMut::new(scaler.output(), vec![&mut out], &[4]).unwrap();
        let refused = scaler.scale(&input, &mut output);
        assert_eq!(refused, Err(LayoutError::Mismatch));
    }
}
