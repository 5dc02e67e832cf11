// SPDX-License-Identifier: MPL-2.0
//! Where the samples of a raw picture lie.

use std::ops::Range;

/// Largest width and height of a picture before scaling.
pub const MAX_SIZE: usize = 8192;
/// Most planes of a format.
const MAX_PLANES: usize = 3;

/// Raw formats, with GStreamer's names and layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 4:2:0, three planes, 8 bit.
    I420,
    /// 4:2:0, luma and interleaved chroma, 8 bit.
    Nv12,
    /// 4:2:0, three planes, 10 bit in the low bits of little-endian words.
    I42010Le,
    /// 4:2:0, luma and interleaved chroma, 10 bit in the high bits of little-endian words.
    P01010Le,
    /// 4:4:4, three planes, 8 bit.
    Y444,
    /// Red, green, blue in one plane, 8 bit each.
    Rgb,
    /// Luma alone, 8 bit.
    Gray8,
}

/// How a sample is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    /// A byte.
    Eight,
    /// A little-endian word that holds 10 bits, shifted left by so many.
    Ten(u32),
}

impl Sample {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Eight => 1,
            Self::Ten(_) => 2,
        }
    }

    /// The largest code value.
    pub(super) fn max(self) -> f32 {
        match self {
            Self::Eight => 255.0,
            Self::Ten(_) => 1023.0,
        }
    }

    /// Code values for one of 8 bits.
    pub(super) fn per_step(self) -> f32 {
        match self {
            Self::Eight => 1.0,
            Self::Ten(_) => 4.0,
        }
    }
}

/// What is wrong with a layout or the memory given for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Pictures have between 1 and [`MAX_SIZE`] samples along each axis.
    #[error("pictures of {width}x{height} cannot be scaled: 1x1 to {MAX_SIZE}x{MAX_SIZE} can")]
    Size {
        /// Asked for.
        width: usize,
        /// Asked for.
        height: usize,
    },
    /// A picture has another number of planes.
    #[error("{got} planes, {expected} are needed")]
    PlaneCount {
        /// Given.
        got: usize,
        /// What the format has.
        expected: usize,
    },
    /// A plane is smaller than its rows need.
    #[error(
        "plane {plane} has {len} bytes in rows of {stride}, {rows} rows of {row_bytes} are needed"
    )]
    PlaneSize {
        /// Number of the plane.
        plane: usize,
        /// Bytes given.
        len: usize,
        /// Bytes from one row to the next.
        stride: usize,
        /// Rows needed.
        rows: usize,
        /// Bytes needed in each row.
        row_bytes: usize,
    },
    /// Input or output are not of the layout that the scaler was made for.
    #[error("the picture has another layout than the scaler")]
    Mismatch,
}

/// Format and size of a picture, and what its numbers mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Format.
    pub format: Format,
    width: usize,
    height: usize,
    /// Luma (of RGB: each component) spans all code values instead of 16 to 235 (64 to 940 of 10
    /// bits).
    pub full_range: bool,
    /// Columns of subsampled chroma lie on those of luma (H.264's default) instead of between two.
    pub cosited_columns: bool,
    /// The same of rows.
    pub cosited_rows: bool,
}

/// One plane of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Samples of each component in a row.
    pub width: usize,
    pub height: usize,
    /// Components that are interleaved in it.
    pub components: usize,
    pub sample: Sample,
    /// It has half the resolution of luma.
    pub subsampled: bool,
}

impl Shape {
    /// Bytes from one sample of a component to the next.
    pub(super) fn step(&self) -> usize {
        self.components * self.sample.bytes()
    }

    pub(super) fn row_bytes(&self) -> usize {
        self.width * self.step()
    }
}

impl Layout {
    /// A layout in limited range with chroma between luma samples.
    ///
    /// # Errors
    /// [`LayoutError::Size`].
    pub fn new(format: Format, width: usize, height: usize) -> Result<Self, LayoutError> {
        if !(1..=MAX_SIZE).contains(&width) || !(1..=MAX_SIZE).contains(&height) {
            return Err(LayoutError::Size { width, height });
        }
        Ok(Self {
            format,
            width,
            height,
            full_range: false,
            cosited_columns: false,
            cosited_rows: false,
        })
    }

    /// Samples of luma in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows of luma.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The same, `scale` times as large along both axes.
    pub(super) fn scaled(&self, scale: usize) -> Self {
        Self {
            width: self.width * scale,
            height: self.height * scale,
            ..*self
        }
    }

    /// Number of planes.
    pub fn planes(&self) -> usize {
        match self.format {
            Format::I420 | Format::I42010Le | Format::Y444 => 3,
            Format::Nv12 | Format::P01010Le => 2,
            Format::Rgb | Format::Gray8 => 1,
        }
    }

    /// Luma is not a component, but a sum of all.
    pub(super) fn is_rgb(&self) -> bool {
        self.format == Format::Rgb
    }

    pub(super) fn sample(&self) -> Sample {
        match self.format {
            Format::I42010Le => Sample::Ten(0),
            Format::P01010Le => Sample::Ten(6),
            _ => Sample::Eight,
        }
    }

    pub(super) fn shape(&self, plane: usize) -> Shape {
        let subsampled = plane > 0 && self.format != Format::Y444;
        let length = |n: usize| if subsampled { n.div_ceil(2) } else { n };
        Shape {
            width: length(self.width),
            height: length(self.height),
            components: match (self.format, plane) {
                (Format::Rgb, _) => 3,
                (Format::Nv12 | Format::P01010Le, 1) => 2,
                _ => 1,
            },
            sample: self.sample(),
            subsampled,
        }
    }

    fn check<T: AsRef<[u8]>>(&self, planes: &[T], strides: &[usize]) -> Result<(), LayoutError> {
        let expected = self.planes();
        let got = planes.len().min(strides.len());
        if got != expected || planes.len() != expected {
            return Err(LayoutError::PlaneCount { got, expected });
        }
        for (plane, (data, &stride)) in planes.iter().zip(strides).enumerate() {
            let shape = self.shape(plane);
            let (len, rows, row_bytes) = (data.as_ref().len(), shape.height, shape.row_bytes());
            let needed = stride
                .checked_mul(rows - 1)
                .and_then(|n| n.checked_add(row_bytes));
            if stride < row_bytes || needed.is_none_or(|n| n > len) {
                return Err(LayoutError::PlaneSize {
                    plane,
                    len,
                    stride,
                    rows,
                    row_bytes,
                });
            }
        }
        Ok(())
    }
}

/// A picture to read.
#[derive(Debug, Clone)]
pub struct Planes<'a> {
    layout: Layout,
    /// Bytes, and how many from one row to the next; empty where the format has no such plane.
    planes: [(&'a [u8], usize); MAX_PLANES],
}

impl<'a> Planes<'a> {
    /// A picture whose planes start at the given slices and whose rows are so many bytes apart.
    ///
    /// # Errors
    /// [`LayoutError::PlaneCount`], [`LayoutError::PlaneSize`].
    pub fn new(layout: Layout, data: &[&'a [u8]], strides: &[usize]) -> Result<Self, LayoutError> {
        layout.check(data, strides)?;
        let mut planes: [(&[u8], usize); MAX_PLANES] = Default::default();
        for (plane, given) in planes.iter_mut().zip(data.iter().zip(strides)) {
            *plane = (*given.0, *given.1);
        }
        Ok(Self { layout, planes })
    }

    /// Format and size.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn row(&self, plane: usize, y: usize) -> &'a [u8] {
        let (data, stride) = self.planes[plane];
        &data[y * stride..][..self.layout.shape(plane).row_bytes()]
    }

    /// Rows of the plane that a network sees: luma, or all of RGB.
    pub(super) fn key_rows(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.layout.height).map(|y| self.row(0, y))
    }
}

/// A picture to write.
#[derive(Debug)]
pub struct PlanesMut<'a> {
    layout: Layout,
    planes: [(&'a mut [u8], usize); MAX_PLANES],
}

/// Some rows of a plane to write.
#[derive(Debug)]
pub(super) struct Band<'a> {
    /// Number of the first row in the plane.
    pub first: usize,
    pub rows: usize,
    data: &'a mut [u8],
    stride: usize,
    row_bytes: usize,
}

impl Band<'_> {
    /// Row `i` of the band.
    pub(super) fn row_mut(&mut self, i: usize) -> &mut [u8] {
        &mut self.data[i * self.stride..][..self.row_bytes]
    }
}

impl<'a> PlanesMut<'a> {
    /// As [`Planes::new`].
    ///
    /// # Errors
    /// [`LayoutError::PlaneCount`], [`LayoutError::PlaneSize`].
    pub fn new(
        layout: Layout,
        data: Vec<&'a mut [u8]>,
        strides: &[usize],
    ) -> Result<Self, LayoutError> {
        layout.check(&data, strides)?;
        let mut planes: [(&mut [u8], usize); MAX_PLANES] = Default::default();
        for (plane, (data, &stride)) in planes.iter_mut().zip(data.into_iter().zip(strides)) {
            *plane = (data, stride);
        }
        Ok(Self { layout, planes })
    }

    /// Format and size.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// All rows of some planes in about `count` bands each, with the numbers of the planes.
    pub(super) fn bands(
        &mut self,
        planes: Range<usize>,
        count: usize,
    ) -> impl Iterator<Item = (usize, Band<'_>)> {
        let layout = self.layout;
        let numbered = self.planes.iter_mut().enumerate();
        numbered
            .filter(move |(plane, _)| planes.contains(plane))
            .flat_map(move |(plane, (data, stride))| {
                let shape = layout.shape(plane);
                let bands = cut(data, *stride, shape.row_bytes(), 0..shape.height, count);
                bands.map(move |band| (plane, band))
            })
    }

    /// Some rows of the plane that a network makes, in about `count` bands.
    pub(super) fn key_bands(
        &mut self,
        rows: Range<usize>,
        count: usize,
    ) -> impl Iterator<Item = Band<'_>> {
        let row_bytes = self.layout.shape(0).row_bytes();
        let (data, stride) = &mut self.planes[0];
        cut(data, *stride, row_bytes, rows, count)
    }

    /// As [`Planes::key_rows`].
    pub(super) fn key_rows(&self) -> impl Iterator<Item = &[u8]> {
        let row_bytes = self.layout.shape(0).row_bytes();
        let (data, stride) = &self.planes[0];
        let rows = data.chunks(*stride).take(self.layout.height);
        rows.map(move |row| &row[..row_bytes])
    }

    /// As [`Planes::key_rows`].
    pub(super) fn key_rows_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let row_bytes = self.layout.shape(0).row_bytes();
        let (data, stride) = &mut self.planes[0];
        let rows = data.chunks_mut(*stride).take(self.layout.height);
        rows.map(move |row| &mut row[..row_bytes])
    }
}

/// Cuts rows of a plane into about `count` bands.
fn cut(
    data: &mut [u8],
    stride: usize,
    row_bytes: usize,
    rows: Range<usize>,
    count: usize,
) -> impl Iterator<Item = Band<'_>> {
    let each = rows.len().div_ceil(count.max(1)).max(1);
    // What follows the last row, if anything, belongs to nobody.
    let end = data.len().min(rows.end * stride);
    data[rows.start * stride..end]
        .chunks_mut(each * stride)
        .enumerate()
        .map(move |(i, data)| {
            let first = rows.start + i * each;
            Band {
                first,
                rows: each.min(rows.end - first),
                data,
                stride,
                row_bytes,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sizes_round_chroma_up() {
        let layout = Layout::new(Format::Nv12, 5, 3).unwrap();
        let chroma = layout.shape(1);
        assert_eq!((chroma.width, chroma.height, chroma.row_bytes()), (3, 2, 6));
        let layout = Layout::new(Format::P01010Le, 5, 3).unwrap();
        assert_eq!(layout.shape(0).row_bytes(), 10);
        assert_eq!(layout.shape(1).row_bytes(), 12);
        let full = Layout::new(Format::Y444, 5, 3).unwrap().shape(2);
        assert_eq!((full.width, full.height), (5, 3));
    }

    #[test]
    fn memory_that_does_not_fit_is_refused() {
        for (width, height) in [(0, 1), (1, 0), (8193, 1), (1, usize::MAX)] {
            let refused = Layout::new(Format::I420, width, height);
            assert_eq!(refused, Err(LayoutError::Size { width, height }));
        }
        let layout = Layout::new(Format::Gray8, 4, 3).unwrap();
        let data = [0; 16];
        // The last row may end before its stride does.
        assert!(Planes::new(layout, &[&data[..14]], &[5]).is_ok());
        for (data, stride) in [
            (&data[..13], 5),
            (&data[..], 3),
            (&data[..], 7),
            (&data[..], usize::MAX),
        ] {
            let error = Planes::new(layout, &[data], &[stride]).unwrap_err();
            assert!(
                matches!(error, LayoutError::PlaneSize { plane: 0, .. }),
                "{error}"
            );
        }
        let error = Planes::new(layout, &[&data, &data], &[4, 4]).unwrap_err();
        assert_eq!(
            error,
            LayoutError::PlaneCount {
                got: 2,
                expected: 1
            }
        );
    }

    #[test]
    fn bands_cover_the_rows_once() {
        let layout = Layout::new(Format::Gray8, 3, 10).unwrap();
        for (from, to, count) in [(0, 10, 1), (0, 10, 3), (2, 9, 4), (5, 6, 8)] {
            let mut data = vec![0; 4 * 9 + 3];
            let mut picture = PlanesMut::new(layout, vec![&mut data], &[4]).unwrap();
            let mut seen = Vec::new();
            for mut band in picture.key_bands(from..to, count) {
                for i in 0..band.rows {
                    seen.push(band.first + i);
                    band.row_mut(i).fill(1);
                }
            }
            assert_eq!(seen, (from..to).collect::<Vec<_>>());
            let written = picture.key_rows().map(|row| row == [1; 3]);
            assert!(
                written
                    .enumerate()
                    .all(|(y, written)| written == (from..to).contains(&y))
            );
        }
    }
}
