// SPDX-License-Identifier: MPL-2.0
//! What the viewer does, as far as it says what is worth sending.

/// What is known of the viewer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Viewer {
    /// Nothing is played.
    pub paused: bool,
    /// The window cannot be seen.
    pub hidden: bool,
    /// Size of the window in pixels; `None`: not told, or full screen.
    pub window: Option<(u32, u32)>,
    /// Speed of playback; live it is 1.
    pub speed: f64,
}

impl Default for Viewer {
    fn default() -> Self {
        Self {
            paused: false,
            hidden: false,
            window: None,
            speed: 1.0,
        }
    }
}

/// Speeds that are believed.
const SPEEDS: std::ops::RangeInclusive<f64> = 0.1..=8.0;

impl Viewer {
    /// The same with what cannot be replaced by what is likely: a window without area is not told,
    /// a speed that is none is 1.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            window: self.window.filter(|(w, h)| *w > 0 && *h > 0),
            speed: if SPEEDS.contains(&self.speed) {
                self.speed
            } else {
                1.0
            },
            ..self
        }
    }

    /// Whether pictures are wanted at all.
    pub fn watches(&self) -> bool {
        !self.paused
    }

    /// Share of the samples of a picture that the viewer can see at most: 1 for a window as large
    /// as the picture. A hidden one gets the smallest share, so that it goes on when it is shown.
    pub fn share(&self, picture: (u32, u32)) -> f64 {
        if self.hidden {
            return 0.0;
        }
        let area = |(w, h): (u32, u32)| f64::from(w) * f64::from(h);
        match self.window {
            Some(window) if area(picture) > 0.0 => (area(window) / area(picture)).min(1.0),
            _ => 1.0,
        }
    }
}
