// SPDX-License-Identifier: MPL-2.0
//! What elements draw over pictures to show what they did.

use gst::glib;

/// Red, green, blue.
pub type Colour = [u8; 3];

/// Cividis at its ends.
const LOW: Colour = [0, 34, 78];
const HIGH: Colour = [254, 232, 56];

/// From blue to yellow, for shares from 0 to 1.
pub fn heat(share: f32) -> Colour {
    std::array::from_fn(|i| {
        let (low, high) = (f32::from(LOW[i]), f32::from(HIGH[i]));
        (low + share * (high - low)).round() as u8
    })
}

/// What is put over a picture: red, green, blue, opacity, as shown.
pub struct Canvas {
    pub width: i32,
    pub height: i32,
    /// Where its first pixel lies: drawing goes by samples of the coded picture.
    pub left: i32,
    pub top: i32,
    /// As `VideoFormat::OVERLAY` wants it.
    pixels: Vec<u8>,
}

/// Pixels of overlays: 32 bit of opacity, red, green, blue in the machine's order.
const FORMAT: gst_video::VideoFormat = if cfg!(target_endian = "big") {
    gst_video::VideoFormat::Argb
} else {
    gst_video::VideoFormat::Bgra
};

impl Canvas {
    /// Nothing on it yet; `left` and `top` are cut off before it is shown.
    pub fn new((width, height): (u32, u32), (left, top): (u32, u32)) -> Self {
        // Sides are far below 2^31.
        Self {
            width: width as i32,
            height: height as i32,
            left: left as i32,
            top: top as i32,
            pixels: vec![0; 4 * width as usize * height as usize],
        }
    }

    /// Sets a pixel at a place of the coded picture; outside of what is shown, nothing.
    pub fn set(&mut self, x: i32, y: i32, [r, g, b]: Colour, opacity: u8) {
        let (x, y) = (x - self.left, y - self.top);
        if (0..self.width).contains(&x) && (0..self.height).contains(&y) {
            let at = 4 * (y as usize * self.width as usize + x as usize);
            let pixel = u32::from_be_bytes([opacity, r, g, b]).to_ne_bytes();
            self.pixels[at..at + 4].copy_from_slice(&pixel);
        }
    }

    /// A square.
    pub fn fill(&mut self, x: usize, y: usize, side: usize, colour: Colour, opacity: u8) {
        for dy in 0..side {
            for dx in 0..side {
                self.set((x + dx) as i32, (y + dy) as i32, colour, opacity);
            }
        }
    }

    /// A line, and a dot at its end.
    pub fn arrow(&mut self, (x, y): (i32, i32), (dx, dy): (i32, i32), colour: Colour) {
        // Nothing is to be seen of more.
        let most = self.width.max(self.height);
        let (dx, dy) = (dx.clamp(-most, most), dy.clamp(-most, most));
        let steps = dx.abs().max(dy.abs()).max(1);
        for i in 0..=steps {
            self.set(x + dx * i / steps, y + dy * i / steps, colour, 255);
        }
        for (ex, ey) in [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)] {
            self.set(x + dx + ex, y + dy + ey, colour, 255);
        }
    }
    /// Goes with the picture in `buffer` where downstream draws overlays by itself, into it
    /// elsewhere.
    ///
    /// # Errors
    /// What cannot be drawn, and why.
    pub fn put(
        self,
        buffer: &mut gst::BufferRef,
        info: &gst_video::VideoInfo,
        overlay: bool,
    ) -> Result<(), String> {
        let composition = self.composition().map_err(|e| e.to_string())?;
        if overlay {
            gst_video::VideoOverlayCompositionMeta::add(buffer, &composition);
            return Ok(());
        }
        let mut picture = gst_video::VideoFrameRef::from_buffer_ref_writable(buffer, info)
            .map_err(|e| e.to_string())?;
        composition.blend(&mut picture).map_err(|e| e.to_string())
    }

    fn composition(self) -> Result<gst_video::VideoOverlayComposition, glib::BoolError> {
        let (width, height) = (self.width as u32, self.height as u32);
        let mut pixels = gst::Buffer::from_mut_slice(self.pixels);
        gst_video::VideoMeta::add(
            pixels.make_mut(),
            gst_video::VideoFrameFlags::empty(),
            FORMAT,
            width,
            height,
        )?;
        let rectangle = gst_video::VideoOverlayRectangle::new_raw(
            &pixels,
            0,
            0,
            width,
            height,
            gst_video::VideoOverlayFormatFlags::empty(),
        );
        gst_video::VideoOverlayComposition::new(Some(&rectangle))
    }
}
