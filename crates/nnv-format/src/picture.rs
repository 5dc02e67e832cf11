// SPDX-License-Identifier: MPL-2.0
//! Pictures: planar 4:2:0 at 10 bit, padded to multiples of 16, and their packing into tensors.
//!
//! Everything inside the codec works on [`Picture`]: samples are `u16` in 0..=1023, whatever the
//! raw format was. Sizes come in two kinds: the *visible* size is what the user sees, the *padded*
//! size is rounded up to multiples of 16 luma samples and is what the networks see.

use nnv_bitstream::limits::MAX_SIDE;

/// Padded sizes are multiples of this many luma samples.
pub const ALIGN: usize = 16;
/// Channels of a packed picture: 64 luma, 16 U, 16 V.
pub const TENSOR_CHANNELS: usize = 96;
/// Largest sample value.
pub const MAX_SAMPLE: u16 = 1023;
/// Peak used for PSNR: 255 in the 8-bit scale, so that figures compare with those of 8-bit tools.
pub const PSNR_PEAK: f64 = 1020.0;

const CENTRE: u16 = 512;

/// What can be wrong with sizes and buffers handed to this module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PictureError {
    /// The size is zero or beyond [`MAX_SIDE`].
    #[error("picture size {width}x{height} is not supported: each side must be 1 to {MAX_SIDE}")]
    Size {
        /// Width asked for.
        width: u32,
        /// Height asked for.
        height: u32,
    },
    /// A raw frame has the wrong number of planes.
    #[error("{format:?} needs {expected} planes, {got} were given")]
    Planes {
        /// Raw format.
        format: RawFormat,
        /// Planes the format has.
        expected: usize,
        /// Planes given.
        got: usize,
    },
    /// A plane of a raw frame is too small for its size and stride.
    #[error(
        "plane {plane} of a {format:?} frame holds {got} bytes with stride {stride}, but needs \
         {rows} rows of {row_bytes} bytes"
    )]
    PlaneSize {
        /// Raw format.
        format: RawFormat,
        /// Index of the plane.
        plane: usize,
        /// Bytes in the plane.
        got: usize,
        /// Stride given, in bytes.
        stride: usize,
        /// Rows needed.
        rows: usize,
        /// Bytes needed per row.
        row_bytes: usize,
    },
    /// A tensor does not have `96 * h8 * w8` elements.
    #[error(
        "tensor of a {width}x{height} picture has {got} elements instead of {expected}: check \
         the graph's shapes"
    )]
    Tensor {
        /// Visible width of the picture.
        width: u32,
        /// Visible height of the picture.
        height: u32,
        /// Elements needed.
        expected: usize,
        /// Elements given.
        got: usize,
    },
}

/// Raw frame layouts that the codec reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RawFormat {
    /// 8 bit, planes Y, U, V.
    I420,
    /// 8 bit, planes Y and interleaved UV.
    Nv12,
    /// 10 bit in the low bits of little-endian 16-bit words, planes Y, U, V.
    I42010Le,
    /// 10 bit in the high bits of little-endian 16-bit words, planes Y and interleaved UV.
    P01010Le,
    /// 8 bit, plane Y.
    Gray8,
    /// 16 bit in little-endian words, plane Y. The 10 most significant bits are read; written are
    /// these and, below, their own 6 highest ones, so that white stays white.
    Gray16Le,
}

impl RawFormat {
    /// Bits per sample: 8 or 10.
    pub fn bit_depth(self) -> u8 {
        match self {
            Self::I420 | Self::Nv12 | Self::Gray8 => 8,
            Self::I42010Le | Self::P01010Le | Self::Gray16Le => 10,
        }
    }

    /// Number of planes: 3, or 2 where chroma is interleaved, or 1 where there is none.
    pub fn planes(self) -> usize {
        match self {
            Self::I420 | Self::I42010Le => 3,
            Self::Nv12 | Self::P01010Le => 2,
            Self::Gray8 | Self::Gray16Le => 1,
        }
    }

    /// Whether it has no chroma.
    pub fn is_grey(self) -> bool {
        self.planes() == 1
    }

    fn interleaved(self) -> bool {
        matches!(self, Self::Nv12 | Self::P01010Le)
    }

    fn bytes(self) -> usize {
        usize::from(self.bit_depth() > 8) + 1
    }

    /// Rows and bytes per row that plane `plane` of a `width`×`height` frame needs.
    fn extent(self, plane: usize, width: usize, height: usize) -> (usize, usize) {
        if plane == 0 {
            (height, width * self.bytes())
        } else {
            let samples = if self.interleaved() { 2 } else { 1 };
            (
                height.div_ceil(2),
                width.div_ceil(2) * self.bytes() * samples,
            )
        }
    }

    fn check<'a>(
        self,
        width: usize,
        height: usize,
        strides: &[usize],
        lens: impl ExactSizeIterator<Item = usize> + 'a,
    ) -> Result<(), PictureError> {
        let (expected, got) = (self.planes(), lens.len().min(strides.len()));
        if expected != got {
            return Err(PictureError::Planes {
                format: self,
                expected,
                got,
            });
        }
        for (plane, (got, &stride)) in lens.zip(strides).enumerate() {
            let (rows, row_bytes) = self.extent(plane, width, height);
            let needed = stride
                .checked_mul(rows - 1)
                .and_then(|n| n.checked_add(row_bytes));
            if stride < row_bytes || needed.is_none_or(|n| n > got) {
                return Err(PictureError::PlaneSize {
                    format: self,
                    plane,
                    got,
                    stride,
                    rows,
                    row_bytes,
                });
            }
        }
        Ok(())
    }
}

/// One plane of samples, 0..=1023. Rows are contiguous: the stride is the padded width.
#[derive(Clone, PartialEq, Eq)]
pub struct Plane {
    data: Vec<u16>,
    width: usize,
    height: usize,
    visible_width: usize,
    visible_height: usize,
}

impl std::fmt::Debug for Plane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Plane({}x{} in {}x{})",
            self.visible_width, self.visible_height, self.width, self.height
        )
    }
}

impl Plane {
    /// A plane of `width`×`height` samples with the same visible size, all `value`.
    pub fn new(width: usize, height: usize, value: u16) -> Self {
        Self {
            data: vec![value; width * height],
            width,
            height,
            visible_width: width,
            visible_height: height,
        }
    }

    /// Padded width; also the distance between rows.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Padded height.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Distance between the starts of two rows, in samples.
    pub fn stride(&self) -> usize {
        self.width
    }

    /// Visible width.
    pub fn visible_width(&self) -> usize {
        self.visible_width
    }

    /// Visible height.
    pub fn visible_height(&self) -> usize {
        self.visible_height
    }

    /// All samples of the padded plane, row after row.
    pub fn data(&self) -> &[u16] {
        &self.data
    }

    /// All samples of the padded plane, row after row. Values must stay within 0..=1023.
    pub fn data_mut(&mut self) -> &mut [u16] {
        &mut self.data
    }

    /// Row `y` in its padded width.
    #[inline]
    pub fn row(&self, y: usize) -> &[u16] {
        &self.data[y * self.width..][..self.width]
    }

    /// Row `y` in its padded width. Values must stay within 0..=1023.
    #[inline]
    pub fn row_mut(&mut self, y: usize) -> &mut [u16] {
        &mut self.data[y * self.width..][..self.width]
    }

    /// The visible part of row `y`.
    #[inline]
    pub fn visible_row(&self, y: usize) -> &[u16] {
        &self.data[y * self.width..][..self.visible_width]
    }

    /// Iterates over the visible rows.
    pub fn visible_rows(&self) -> impl Iterator<Item = &[u16]> {
        self.data
            .chunks_exact(self.width)
            .take(self.visible_height)
            .map(|row| &row[..self.visible_width])
    }

    /// Repeats the visible edge over the padding.
    fn pad(&mut self) {
        let (w, vw) = (self.width, self.visible_width);
        for row in self.data.chunks_exact_mut(w).take(self.visible_height) {
            let edge = row[vw - 1];
            row[vw..].fill(edge);
        }
        let last = (self.visible_height - 1) * w;
        for y in self.visible_height..self.height {
            self.data.copy_within(last..last + w, y * w);
        }
    }

    /// The plane at half width and height (2×2 averages). Sizes round up, edges repeat.
    pub fn half(&self) -> Plane {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let mut out = Plane::new(width, height, 0);
        out.visible_width = self.visible_width.div_ceil(2);
        out.visible_height = self.visible_height.div_ceil(2);
        for (y, dst) in out.data.chunks_exact_mut(width).enumerate() {
            let a = self.row(2 * y);
            let b = self.row((2 * y + 1).min(self.height - 1));
            for ((d, a), b) in dst.iter_mut().zip(a.chunks_exact(2)).zip(b.chunks_exact(2)) {
                *d = (a[0] + a[1] + b[0] + b[1] + 2) >> 2;
            }
            if self.width % 2 == 1 {
                let x = self.width - 1;
                dst[width - 1] = (a[x] + b[x]).div_ceil(2);
            }
        }
        out
    }

    /// Sum of squared differences over the visible samples of two planes of one size.
    pub fn sse(&self, other: &Plane) -> u64 {
        self.visible_rows()
            .zip(other.visible_rows())
            .map(|(a, b)| {
                // 2^20 per sample at most: 2048 samples fit a u32 with room to spare.
                a.chunks(2048)
                    .zip(b.chunks(2048))
                    .map(|(a, b)| {
                        u64::from(
                            a.iter()
                                .zip(b)
                                .map(|(&a, &b)| {
                                    let d = i32::from(a) - i32::from(b);
                                    (d * d) as u32
                                })
                                .sum::<u32>(),
                        )
                    })
                    .sum::<u64>()
            })
            .sum()
    }

    /// Sum of absolute differences over the visible samples of two planes of one size.
    pub fn sad(&self, other: &Plane) -> u64 {
        self.visible_rows()
            .zip(other.visible_rows())
            .map(|(a, b)| {
                u64::from(
                    a.iter()
                        .zip(b)
                        .map(|(&a, &b)| u32::from(a.abs_diff(b)))
                        .sum::<u32>(),
                )
            })
            .sum()
    }
}

/// A 4:2:0 picture of 10-bit samples, padded to multiples of 16 luma samples.
///
/// Equality compares the padded samples too; use [`Picture::is_equal`] for what the user sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    planes: [Plane; 3],
}

impl Picture {
    /// A grey picture (all samples 512).
    ///
    /// # Errors
    /// [`PictureError::Size`] unless both sides are within 1..=[`MAX_SIDE`].
    pub fn new(width: u32, height: u32) -> Result<Self, PictureError> {
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(PictureError::Size { width, height });
        }
        let (w, h) = (width as usize, height as usize);
        let (pw, ph) = (w.next_multiple_of(ALIGN), h.next_multiple_of(ALIGN));
        let chroma = Plane {
            visible_width: w.div_ceil(2),
            visible_height: h.div_ceil(2),
            ..Plane::new(pw / 2, ph / 2, CENTRE)
        };
        let luma = Plane {
            visible_width: w,
            visible_height: h,
            ..Plane::new(pw, ph, CENTRE)
        };
        Ok(Self {
            planes: [luma, chroma.clone(), chroma],
        })
    }

    /// Visible width in luma samples.
    pub fn width(&self) -> u32 {
        self.planes[0].visible_width as u32
    }

    /// Visible height in luma samples.
    pub fn height(&self) -> u32 {
        self.planes[0].visible_height as u32
    }

    /// Padded width in luma samples: a multiple of 16.
    pub fn padded_width(&self) -> usize {
        self.planes[0].width
    }

    /// Padded height in luma samples: a multiple of 16.
    pub fn padded_height(&self) -> usize {
        self.planes[0].height
    }

    /// Planes Y, U, V.
    pub fn planes(&self) -> &[Plane; 3] {
        &self.planes
    }

    /// Planes Y, U, V.
    pub fn planes_mut(&mut self) -> &mut [Plane; 3] {
        &mut self.planes
    }

    /// One plane: 0 is Y, 1 is U, 2 is V.
    pub fn plane(&self, index: usize) -> &Plane {
        &self.planes[index]
    }

    /// The luma plane.
    pub fn luma(&self) -> &Plane {
        &self.planes[0]
    }

    /// One plane: 0 is Y, 1 is U, 2 is V.
    pub fn plane_mut(&mut self, index: usize) -> &mut Plane {
        &mut self.planes[index]
    }

    /// True where both pictures have one visible (and so one padded) size.
    pub fn same_size(&self, other: &Picture) -> bool {
        self.width() == other.width() && self.height() == other.height()
    }

    /// Overwrites the padding with the visible edge.
    pub fn pad(&mut self) {
        self.planes.iter_mut().for_each(Plane::pad);
    }

    /// Reads a raw frame. `strides` are in bytes; rows beyond the visible height are not read.
    ///
    /// # Errors
    /// [`PictureError::Size`], [`PictureError::Planes`] or [`PictureError::PlaneSize`].
    pub fn from_raw(
        format: RawFormat,
        width: u32,
        height: u32,
        planes: &[&[u8]],
        strides: &[usize],
    ) -> Result<Self, PictureError> {
        let mut picture = Self::new(width, height)?;
        picture.read_raw(format, planes, strides)?;
        Ok(picture)
    }

    /// Like [`Picture::from_raw`] into an existing picture of the frame's size.
    ///
    /// # Errors
    /// [`PictureError::Planes`] or [`PictureError::PlaneSize`]; the picture is then unchanged.
    pub fn read_raw(
        &mut self,
        format: RawFormat,
        planes: &[&[u8]],
        strides: &[usize],
    ) -> Result<(), PictureError> {
        let (w, h) = (self.width() as usize, self.height() as usize);
        format.check(w, h, strides, planes.iter().map(|p| p.len()))?;
        let [y, u, v] = &mut self.planes;
        let ten_bit = |b: [u8; 2]| match format {
            RawFormat::P01010Le | RawFormat::Gray16Le => u16::from_le_bytes(b) >> 6,
            // Garbage above 10 bit must not break the invariant of the samples.
            _ => u16::from_le_bytes(b).min(MAX_SAMPLE),
        };
        let read = |dst: &mut Plane, src: &[u8], stride: usize| {
            let (w, vw, vh) = (dst.width, dst.visible_width, dst.visible_height);
            let rows = dst.data.chunks_exact_mut(w).take(vh);
            for (row, src) in rows.zip(src.chunks(stride)) {
                if format.bit_depth() == 8 {
                    for (d, &s) in row[..vw].iter_mut().zip(src) {
                        *d = u16::from(s) << 2;
                    }
                } else {
                    for (d, s) in row[..vw].iter_mut().zip(src.as_chunks::<2>().0) {
                        *d = ten_bit(*s);
                    }
                }
            }
        };
        read(y, planes[0], strides[0]);
        if format.is_grey() {
            u.data.fill(CENTRE);
            v.data.fill(CENTRE);
        } else if format.interleaved() {
            let (w, vw, vh) = (u.width, u.visible_width, u.visible_height);
            let u_rows = u.data.chunks_exact_mut(w).take(vh);
            let v_rows = v.data.chunks_exact_mut(w);
            for ((u, v), src) in u_rows.zip(v_rows).zip(planes[1].chunks(strides[1])) {
                let out = u[..vw].iter_mut().zip(&mut v[..vw]);
                if format.bit_depth() == 8 {
                    for ((u, v), s) in out.zip(src.as_chunks::<2>().0) {
                        *u = u16::from(s[0]) << 2;
                        *v = u16::from(s[1]) << 2;
                    }
                } else {
                    for ((u, v), s) in out.zip(src.as_chunks::<4>().0) {
                        *u = ten_bit([s[0], s[1]]);
                        *v = ten_bit([s[2], s[3]]);
                    }
                }
            }
        } else {
            read(u, planes[1], strides[1]);
            read(v, planes[2], strides[2]);
        }
        self.pad();
        Ok(())
    }

    /// Writes the visible part as a raw frame. `strides` are in bytes; bytes beyond the visible
    /// width and height are left alone. 8-bit formats get `(v + 2) >> 2`, clipped to 255.
    ///
    /// # Errors
    /// [`PictureError::Planes`] or [`PictureError::PlaneSize`]; nothing is written then.
    pub fn write_raw(
        &self,
        format: RawFormat,
        planes: &mut [&mut [u8]],
        strides: &[usize],
    ) -> Result<(), PictureError> {
        let (w, h) = (self.width() as usize, self.height() as usize);
        format.check(w, h, strides, planes.iter().map(|p| p.len()))?;
        let eight_bit = |v: u16| ((v + 2) >> 2).min(255) as u8;
        let ten_bit = |v: u16| match format {
            RawFormat::P01010Le => (v << 6).to_le_bytes(),
            RawFormat::Gray16Le => (v << 6 | v >> 4).to_le_bytes(),
            _ => v.to_le_bytes(),
        };
        let write = |src: &Plane, dst: &mut [u8], stride: usize| {
            for (row, dst) in src.visible_rows().zip(dst.chunks_mut(stride)) {
                if format.bit_depth() == 8 {
                    for (d, &s) in dst.iter_mut().zip(row) {
                        *d = eight_bit(s);
                    }
                } else {
                    for (d, &s) in dst.as_chunks_mut::<2>().0.iter_mut().zip(row) {
                        *d = ten_bit(s);
                    }
                }
            }
        };
        write(&self.planes[0], planes[0], strides[0]);
        if format.is_grey() {
            return Ok(());
        }
        if format.interleaved() {
            let rows = self.planes[1].visible_rows();
            let rows = rows.zip(self.planes[2].visible_rows());
            for ((u, v), dst) in rows.zip(planes[1].chunks_mut(strides[1])) {
                let samples = u.iter().zip(v);
                if format.bit_depth() == 8 {
                    for (d, (&u, &v)) in dst.as_chunks_mut::<2>().0.iter_mut().zip(samples) {
                        *d = [eight_bit(u), eight_bit(v)];
                    }
                } else {
                    for (d, (&u, &v)) in dst.as_chunks_mut::<4>().0.iter_mut().zip(samples) {
                        let (u, v) = (ten_bit(u), ten_bit(v));
                        *d = [u[0], u[1], v[0], v[1]];
                    }
                }
            }
        } else {
            write(&self.planes[1], planes[1], strides[1]);
            write(&self.planes[2], planes[2], strides[2]);
        }
        Ok(())
    }

    /// The same picture without colour.
    pub fn grey(&self) -> Self {
        let mut out = self.clone();
        for plane in &mut out.planes[1..] {
            plane.data.fill(CENTRE);
        }
        out
    }

    /// The part of `width`×`height` luma samples whose top left corner is at (`left`, `top`). Odd
    /// corners round down to the chroma sample they lie in.
    ///
    /// # Errors
    /// [`PictureError::Size`] where the part is empty or reaches beyond the picture.
    pub fn cropped(
        &self,
        left: u32,
        top: u32,
        width: u32,
        height: u32,
    ) -> Result<Self, PictureError> {
        let fits = |from: u32, len: u32, all: u32| from.checked_add(len).is_some_and(|e| e <= all);
        if !fits(left, width, self.width()) || !fits(top, height, self.height()) {
            return Err(PictureError::Size { width, height });
        }
        let mut out = Self::new(width, height)?;
        for (plane, (dst, src)) in out.planes.iter_mut().zip(&self.planes).enumerate() {
            let shift = u32::from(plane > 0);
            let (x, y) = ((left >> shift) as usize, (top >> shift) as usize);
            for row in 0..dst.visible_height {
                let vw = dst.visible_width;
                // An odd corner may leave the last chroma sample one short: it repeats.
                let from = &src.row((y + row).min(src.height - 1))[x..];
                let len = vw.min(from.len());
                dst.row_mut(row)[..len].copy_from_slice(&from[..len]);
            }
        }
        out.pad();
        Ok(out)
    }

    /// `(h8, w8)`: rows and columns of the packed tensor `[96, h8, w8]`.
    pub fn tensor_size(&self) -> (usize, usize) {
        (self.padded_height() / 8, self.padded_width() / 8)
    }

    /// Elements of the packed tensor: `96 * h8 * w8`.
    pub fn tensor_len(&self) -> usize {
        let (h8, w8) = self.tensor_size();
        TENSOR_CHANNELS * h8 * w8
    }

    fn check_tensor(&self, got: usize) -> Result<(), PictureError> {
        let expected = self.tensor_len();
        if got == expected {
            return Ok(());
        }
        Err(PictureError::Tensor {
            width: self.width(),
            height: self.height(),
            expected,
            got,
        })
    }

    /// Packs the padded picture into a tensor `[96, h8, w8]` of `sample - 512`.
    ///
    /// Channels: luma `(y % 8) * 8 + x % 8`, then U `64 + (y % 4) * 4 + x % 4`, then V from 80 on.
    ///
    /// # Errors
    /// [`PictureError::Tensor`] where `out` has another length than [`Picture::tensor_len`].
    pub fn pack(&self, out: &mut [i16]) -> Result<(), PictureError> {
        self.check_tensor(out.len())?;
        pack_planes(
            self.planes.each_ref().map(|p| &p.data[..]),
            self.tensor_size(),
            |v| v.wrapping_sub(CENTRE),
            out,
        );
        Ok(())
    }

    /// Fills the padded picture from a tensor as made by [`Picture::pack`], clipping samples to
    /// 0..=1023.
    ///
    /// # Errors
    /// [`PictureError::Tensor`] where `tensor` has another length than [`Picture::tensor_len`].
    pub fn unpack(&mut self, tensor: &[i16]) -> Result<(), PictureError> {
        self.check_tensor(tensor.len())?;
        let (h8, w8) = self.tensor_size();
        let (luma, chroma) = tensor.split_at(64 * h8 * w8);
        let (u, v) = chroma.split_at(16 * h8 * w8);
        unpack_plane::<8>(luma, (h8, w8), &mut self.planes[0].data);
        unpack_plane::<4>(u, (h8, w8), &mut self.planes[1].data);
        unpack_plane::<4>(v, (h8, w8), &mut self.planes[2].data);
        Ok(())
    }

    /// CRC-32C over the visible samples as little-endian 16-bit words, row by row, Y then U then V.
    pub fn checksum(&self) -> u32 {
        let mut bytes = Vec::with_capacity(2 * self.planes[0].visible_width);
        let mut crc = 0;
        for row in self.planes.iter().flat_map(Plane::visible_rows) {
            bytes.clear();
            bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
            crc = crc32c::crc32c_append(crc, &bytes);
        }
        crc
    }

    /// True where all visible samples are equal and sizes agree.
    pub fn is_equal(&self, other: &Picture) -> bool {
        self.same_size(other)
            && self
                .planes
                .iter()
                .zip(&other.planes)
                .all(|(a, b)| a.visible_rows().eq(b.visible_rows()))
    }

    /// Mean absolute difference of the visible samples of Y, U and V, in 10-bit units.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn difference(&self, other: &Picture) -> [f64; 3] {
        assert!(self.same_size(other), "pictures differ in size");
        std::array::from_fn(|i| {
            let (a, b) = (&self.planes[i], &other.planes[i]);
            a.sad(b) as f64 / (a.visible_width * a.visible_height) as f64
        })
    }

    /// Sum of squared errors of the visible samples of Y, U and V, in 10-bit units.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn sse(&self, other: &Picture) -> [u64; 3] {
        assert!(self.same_size(other), "pictures differ in size");
        std::array::from_fn(|i| self.planes[i].sse(&other.planes[i]))
    }

    /// PSNR of Y, U and V in dB with the peak of 8-bit video ([`PSNR_PEAK`]); infinite where equal.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn psnr(&self, other: &Picture) -> [f64; 3] {
        let sse = self.sse(other);
        std::array::from_fn(|i| {
            let plane = &self.planes[i];
            let samples = (plane.visible_width * plane.visible_height) as f64;
            10.0 * (PSNR_PEAK * PSNR_PEAK * samples / sse[i] as f64).log10()
        })
    }

    /// PSNR over all three planes, weighted 6:1:1 in the error as is usual for 4:2:0.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn psnr_yuv(&self, other: &Picture) -> f64 {
        let sse = self.sse(other);
        let mse = |i: usize| {
            let plane: &Plane = &self.planes[i];
            sse[i] as f64 / (plane.visible_width * plane.visible_height) as f64
        };
        let mse = (6.0 * mse(0) + mse(1) + mse(2)) / 8.0;
        10.0 * (PSNR_PEAK * PSNR_PEAK / mse).log10()
    }

    /// Luma at a quarter of the padded width and height, for searches and scene-cut detection.
    pub fn quarter_luma(&self) -> Plane {
        self.planes[0].half().half()
    }
}

/// Packs three planes (luma of `8 h8 × 8 w8` samples, chroma of half that) into `[96, h8, w8]`,
/// passing every sample through `map`.
pub(crate) fn pack_planes<T: Copy>(
    planes: [&[T]; 3],
    size: (usize, usize),
    map: impl Fn(T) -> u16 + Copy,
    out: &mut [i16],
) {
    let (luma, chroma) = out.split_at_mut(64 * size.0 * size.1);
    let (u, v) = chroma.split_at_mut(16 * size.0 * size.1);
    pack_plane::<8, T>(planes[0], size, map, luma);
    pack_plane::<4, T>(planes[1], size, map, u);
    pack_plane::<4, T>(planes[2], size, map, v);
}

/// 8×8 transposition of 16-bit words.
#[inline(always)]
fn transpose8(m: &mut [[u16; 8]; 8]) {
    // Three rounds of interleaving; each compiles to one unpack instruction per row.
    for _ in 0..3 {
        let s = *m;
        for i in 0..4 {
            let (a, b) = (s[i], s[i + 4]);
            m[2 * i] = [a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]];
            m[2 * i + 1] = [a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]];
        }
    }
}

/// 4×4 transposition of pairs: rows of 8 words are (two groups of) 4 columns.
///
/// `m[r]` holds words `8r..8r+8` of 32 consecutive ones; afterwards `m[k]` holds words `k, k+4, …`.
#[inline(always)]
fn deinterleave4(m: &mut [[u16; 8]; 4]) {
    for _ in 0..3 {
        let s = *m;
        for i in 0..2 {
            let (a, b) = (s[i], s[i + 2]);
            m[2 * i] = [a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]];
            m[2 * i + 1] = [a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]];
        }
    }
}

/// Inverse of [`deinterleave4`].
#[inline(always)]
fn interleave4(m: &mut [[u16; 8]; 4]) {
    for _ in 0..2 {
        let s = *m;
        for i in 0..2 {
            let (a, b) = (s[i], s[i + 2]);
            m[2 * i] = [a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]];
            m[2 * i + 1] = [a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]];
        }
    }
}

fn pack_plane<const B: usize, T: Copy>(
    src: &[T],
    (h8, w8): (usize, usize),
    map: impl Fn(T) -> u16 + Copy,
    out: &mut [i16],
) {
    let (stride, plane) = (w8 * B, h8 * w8);
    for (y, row) in src.chunks_exact(stride).enumerate() {
        let first = (y % B) * B * plane + (y / B) * w8;
        let mut x = 0;
        // Eight blocks of a row at once; `first + k * plane + x` is where word k of block x goes.
        while x + 8 <= w8 {
            if B == 8 {
                let words = row[x * 8..][..64].as_chunks::<8>().0;
                let mut m: [[u16; 8]; 8] = std::array::from_fn(|i| words[i].map(map));
                transpose8(&mut m);
                for (k, m) in m.iter().enumerate() {
                    out[first + k * plane + x..][..8].copy_from_slice(&m.map(|v| v as i16));
                }
            } else {
                let words = row[x * 4..][..32].as_chunks::<8>().0;
                let mut m: [[u16; 8]; 4] = std::array::from_fn(|i| words[i].map(map));
                deinterleave4(&mut m);
                for (k, m) in m.iter().enumerate() {
                    out[first + k * plane + x..][..8].copy_from_slice(&m.map(|v| v as i16));
                }
            }
            x += 8;
        }
        for x in x..w8 {
            for k in 0..B {
                out[first + k * plane + x] = map(row[x * B + k]) as i16;
            }
        }
    }
}

#[inline(always)]
fn to_sample(v: i16) -> u16 {
    (v.clamp(-512, 511) + 512) as u16
}

fn unpack_plane<const B: usize>(src: &[i16], (h8, w8): (usize, usize), out: &mut [u16]) {
    let (stride, plane) = (w8 * B, h8 * w8);
    for (y, row) in out.chunks_exact_mut(stride).enumerate() {
        let first = (y % B) * B * plane + (y / B) * w8;
        let load = |k: usize, x: usize| -> [u16; 8] {
            let s: &[i16; 8] = src[first + k * plane + x..]
                .first_chunk()
                .expect("in range");
            s.map(to_sample)
        };
        let mut x = 0;
        while x + 8 <= w8 {
            if B == 8 {
                let mut m: [[u16; 8]; 8] = std::array::from_fn(|k| load(k, x));
                transpose8(&mut m);
                row[x * 8..][..64].copy_from_slice(m.as_flattened());
            } else {
                let mut m: [[u16; 8]; 4] = std::array::from_fn(|k| load(k, x));
                interleave4(&mut m);
                row[x * 4..][..32].copy_from_slice(m.as_flattened());
            }
            x += 8;
        }
        for x in x..w8 {
            for k in 0..B {
                row[x * B + k] = to_sample(src[first + k * plane + x]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small deterministic generator: tests must not depend on a crate for noise.
    fn noise(seed: u64) -> impl FnMut() -> u32 {
        let mut s = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move || {
            s ^= s << 13;
            s ^= s >> 7;
            s ^= s << 17;
            (s >> 32) as u32
        }
    }

    const SIZES: [(u32, u32); 8] = [
        (1, 1),
        (2, 1),
        (15, 17),
        (16, 16),
        (33, 5),
        (130, 70),
        (161, 16),
        (64, 48),
    ];

    fn random_picture(width: u32, height: u32, seed: u64) -> Picture {
        let mut rng = noise(seed);
        let mut p = Picture::new(width, height).unwrap();
        for plane in p.planes_mut() {
            plane.data_mut().fill_with(|| (rng() % 1024) as u16);
        }
        p
    }

    #[test]
    fn sizes_are_checked_and_padded() {
        for (w, h) in [(0, 1), (1, 0), (16385, 1), (1, u32::MAX)] {
            assert_eq!(
                Picture::new(w, h),
                Err(PictureError::Size {
                    width: w,
                    height: h
                })
            );
        }
        let p = Picture::new(17, 1).unwrap();
        assert_eq!((p.padded_width(), p.padded_height()), (32, 16));
        assert_eq!(p.plane(1).visible_width(), 9);
        assert_eq!(p.plane(2).visible_height(), 1);
        assert_eq!((p.plane(1).width(), p.plane(1).height()), (16, 8));
    }

    #[test]
    fn raw_formats_round_trip() {
        use RawFormat::*;
        for (w, h) in SIZES {
            for format in [I420, Nv12, I42010Le, P01010Le] {
                let mut rng = noise(u64::from(w * 1000 + h));
                let (wu, hu) = (w as usize, h as usize);
                let strides: Vec<usize> = (0..format.planes())
                    .map(|i| format.extent(i, wu, hu).1 + 6 * i)
                    .collect();
                let mut raw: Vec<Vec<u8>> = (0..format.planes())
                    .map(|i| {
                        let (rows, bytes) = format.extent(i, wu, hu);
                        // The last row ends without the stride's tail, as real buffers may.
                        let n = strides[i] * (rows - 1) + bytes;
                        let mut v: Vec<u8> = (0..n).map(|_| rng() as u8).collect();
                        if format.bit_depth() == 10 {
                            for row in v.chunks_mut(strides[i]) {
                                for s in row.as_chunks_mut::<2>().0 {
                                    let x = u16::from_le_bytes(*s) & 1023;
                                    *s =
                                        (if format == P01010Le { x << 6 } else { x }).to_le_bytes();
                                }
                            }
                        }
                        v
                    })
                    .collect();
                let refs: Vec<&[u8]> = raw.iter().map(|v| &v[..]).collect();
                let p = Picture::from_raw(format, w, h, &refs, &strides).unwrap();
                let first = match format.bit_depth() {
                    8 => u16::from(raw[0][0]) << 2,
                    _ => {
                        u16::from_le_bytes([raw[0][0], raw[0][1]])
                            >> if format == P01010Le { 6 } else { 0 }
                    }
                };
                assert_eq!(p.luma().row(0)[0], first);
                let luma = p.luma();
                assert_eq!(
                    luma.row(luma.height() - 1)[luma.width() - 1],
                    luma.row(hu - 1)[wu - 1],
                    "padding repeats the corner"
                );
                let before = raw.clone();
                // Wipe what is visible: bytes between rows must survive, the rest come back.
                for (i, v) in raw.iter_mut().enumerate() {
                    let (_, bytes) = format.extent(i, wu, hu);
                    v.chunks_mut(strides[i])
                        .for_each(|row| row[..bytes].fill(0));
                }
                let mut refs: Vec<&mut [u8]> = raw.iter_mut().map(|v| &mut v[..]).collect();
                p.write_raw(format, &mut refs, &strides).unwrap();
                assert_eq!(raw, before, "{format:?} {w}x{h}");
            }
        }
    }

    #[test]
    fn bad_raw_frames_are_refused() {
        let (y, c) = ([0u8; 64], [0u8; 16]);
        let err = Picture::from_raw(RawFormat::I420, 8, 8, &[&y, &c], &[8, 4]).unwrap_err();
        assert!(matches!(
            err,
            PictureError::Planes {
                expected: 3,
                got: 2,
                ..
            }
        ));
        let err =
            Picture::from_raw(RawFormat::I420, 8, 8, &[&y, &c, &c[..15]], &[8, 4, 4]).unwrap_err();
        assert!(matches!(err, PictureError::PlaneSize { plane: 2, .. }));
        let err = Picture::from_raw(RawFormat::Nv12, 8, 8, &[&y, &c], &[7, 8]).unwrap_err();
        assert!(matches!(err, PictureError::PlaneSize { plane: 0, .. }));
        let huge = [usize::MAX; 2];
        assert!(Picture::from_raw(RawFormat::Nv12, 8, 8, &[&y, &c], &huge).is_err());
        // Samples beyond 10 bit are clipped.
        let wide = [0xff; 8];
        let p = Picture::from_raw(
            RawFormat::I42010Le,
            2,
            2,
            &[&wide, &wide, &wide],
            &[4, 2, 2],
        )
        .unwrap();
        assert!(
            p.planes()
                .iter()
                .all(|p| p.data().iter().all(|&v| v == 1023))
        );
        assert_eq!(p.width(), 2);
    }

    #[test]
    fn eight_bit_output_rounds_and_clips() {
        let mut p = Picture::new(4, 1).unwrap();
        p.plane_mut(0).row_mut(0)[..4].copy_from_slice(&[0, 1, 2, 1023]);
        let (mut y, mut uv) = ([9u8; 4], [9u8; 4]);
        p.write_raw(RawFormat::Nv12, &mut [&mut y, &mut uv], &[4, 4])
            .unwrap();
        assert_eq!(y, [0, 0, 1, 255]);
        assert_eq!(uv, [128; 4]);
    }

    #[test]
    fn packing_follows_the_channel_order_and_round_trips() {
        for (w, h) in SIZES {
            let p = random_picture(w, h, 7);
            let (h8, w8) = p.tensor_size();
            let mut t = vec![0i16; p.tensor_len()];
            p.pack(&mut t).unwrap();
            for y in 0..p.padded_height() {
                for x in 0..p.padded_width() {
                    let c = (y % 8) * 8 + x % 8;
                    let got = t[(c * h8 + y / 8) * w8 + x / 8];
                    assert_eq!(got, p.luma().row(y)[x] as i16 - 512);
                }
            }
            for (i, base) in [(1, 64), (2, 80)] {
                for y in 0..p.padded_height() / 2 {
                    for x in 0..p.padded_width() / 2 {
                        let c = base + (y % 4) * 4 + x % 4;
                        let got = t[(c * h8 + y / 4) * w8 + x / 4];
                        assert_eq!(got, p.plane(i).row(y)[x] as i16 - 512);
                    }
                }
            }
            let mut q = Picture::new(w, h).unwrap();
            q.unpack(&t).unwrap();
            assert_eq!(p, q);
            assert!(matches!(
                q.unpack(&t[1..]),
                Err(PictureError::Tensor { .. })
            ));
            assert!(p.pack(&mut t[1..]).is_err());
        }
    }

    #[test]
    fn unpacking_clips() {
        let mut p = Picture::new(1, 1).unwrap();
        let mut t = vec![i16::MAX; p.tensor_len()];
        t[0] = i16::MIN;
        p.unpack(&t).unwrap();
        assert_eq!(p.luma().row(0)[..2], [0, 1023]);
    }

    #[test]
    fn checksum_sees_visible_samples_only() {
        let mut p = random_picture(17, 9, 3);
        let sum = p.checksum();
        let mut bytes = Vec::new();
        for plane in p.planes() {
            for y in 0..plane.visible_height() {
                for x in 0..plane.visible_width() {
                    bytes.extend(plane.row(y)[x].to_le_bytes());
                }
            }
        }
        assert_eq!(sum, crc32c::crc32c(&bytes));
        let before = p.clone();
        p.plane_mut(0).row_mut(0)[17] ^= 1;
        assert_eq!(p.checksum(), sum);
        assert!(p.is_equal(&before));
        p.plane_mut(2).row_mut(4)[8] ^= 1;
        assert_ne!(p.checksum(), sum);
        assert!(!p.is_equal(&before));
        assert!(!p.is_equal(&Picture::new(9, 17).unwrap()));
    }

    #[test]
    fn errors_are_measured() {
        let a = Picture::new(20, 10).unwrap();
        let mut b = a.clone();
        assert_eq!(a.psnr(&b), [f64::INFINITY; 3]);
        for v in b.plane_mut(0).data_mut() {
            *v += 4;
        }
        assert_eq!(a.sse(&b), [200 * 16, 0, 0]);
        assert_eq!(a.difference(&b), [4.0, 0.0, 0.0]);
        assert!((a.psnr(&b)[0] - 48.1308).abs() < 1e-3);
        assert!((a.psnr_yuv(&b) - 49.3802).abs() < 1e-3);
    }

    #[test]
    fn cropping_takes_the_right_part() {
        let mut picture = Picture::new(40, 36).unwrap();
        for (plane, p) in picture.planes_mut().iter_mut().enumerate() {
            let w = p.width();
            for (i, v) in p.data_mut().iter_mut().enumerate() {
                *v = (plane * 300 + i / w * 5 + i % w) as u16;
            }
        }
        let part = picture.cropped(6, 4, 17, 9).unwrap();
        assert_eq!((part.width(), part.height()), (17, 9));
        assert_eq!(part.plane(0).row(8)[16], picture.plane(0).row(12)[22]);
        assert_eq!(part.plane(2).row(4)[8], picture.plane(2).row(6)[11]);
        assert_eq!(part.plane(1).row(0)[0], picture.plane(1).row(2)[3]);
        assert!(picture.cropped(6, 4, 35, 9).is_err());
        assert!(picture.cropped(u32::MAX, 0, 2, 2).is_err());
        assert!(picture.cropped(0, 0, 0, 2).is_err());
    }

    #[test]
    fn quarter_luma_averages() {
        let mut p = Picture::new(16, 16).unwrap();
        for y in 0..16 {
            for (x, v) in p.plane_mut(0).row_mut(y).iter_mut().enumerate() {
                *v = (x / 4 * 100 + y / 4 * 10) as u16;
            }
        }
        let q = p.quarter_luma();
        assert_eq!((q.width(), q.height()), (4, 4));
        assert_eq!(q.row(2), [20, 120, 220, 320]);
    }
}
