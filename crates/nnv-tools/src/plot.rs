// SPDX-License-Identifier: MPL-2.0
//! Measures over time, as SVG.

use std::fmt::Write;

use nnv_quality::DB_CAP;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const GAP: f64 = 50.0;
/// Most points of a curve: more than the picture has columns serves nobody.
const MAX_POINTS: usize = 1800;

/// A measure over time.
#[derive(Debug)]
struct Curve {
    name: &'static str,
    /// Digits behind the point.
    digits: usize,
    values: Vec<f64>,
}

/// What is drawn: a panel for each measure.
#[derive(Debug, Default)]
pub struct Curves(Vec<Curve>);

impl Curves {
    /// Adds a frame's value of a measure, which begins with its first one. Decibels of equal
    /// pictures are drawn at [`DB_CAP`].
    pub fn add(&mut self, name: &'static str, digits: usize, value: f64) {
        let value = value.min(DB_CAP);
        match self.0.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.values.push(value),
            None => self.0.push(Curve {
                name,
                digits,
                values: vec![value],
            }),
        }
    }

    /// The drawing. The axis is in seconds where the rate is known, in frames else.
    pub fn svg(&self, title: &str, rate: Option<(u32, u32)>) -> String {
        let title = title.replace('&', "&amp;").replace('<', "&lt;");
        let total = TOP + self.0.len() as f64 * (HEIGHT + GAP);
        let right = WIDTH - 20.0;
        let mut s = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {total}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" \
             fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n"
        );
        for (i, curve) in self.0.iter().enumerate() {
            let Curve {
                name,
                digits,
                values,
            } = curve;
            let top = TOP + i as f64 * (HEIGHT + GAP);
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            // A flat curve lies in the middle.
            let margin = ((high - low) * 0.05).max(1e-4);
            let (low, high) = (low - margin, high + margin);
            let y = |v: f64| top + HEIGHT * (high - v) / (high - low);
            let _ = writeln!(s, "<text x=\"{LEFT}\" y=\"{}\">{name}</text>", top - 6.0);
            for k in 0..=4 {
                let v = low + (high - low) * f64::from(k) / 4.0;
                let at = y(v);
                let _ = writeln!(
                    s,
                    "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{}\" \
                     y=\"{:.1}\" text-anchor=\"end\">{v:.digits$}</text>",
                    LEFT - 6.0,
                    at + 4.0
                );
            }
            // Where many frames share a column, its worst one is drawn.
            let step = values.len().div_ceil(MAX_POINTS).max(1);
            let count = values.len().div_ceil(step);
            let points = values.chunks(step).enumerate().map(|(i, chunk)| {
                let v = chunk.iter().copied().fold(f64::INFINITY, f64::min);
                let share = i as f64 / count.saturating_sub(1).max(1) as f64;
                format!("{:.1},{:.1}", LEFT + share * (right - LEFT), y(v))
            });
            let points: Vec<_> = points.collect();
            let _ = writeln!(
                s,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f77b4\" stroke-width=\"1.5\"/>",
                points.join(" ")
            );
            let last = match rate {
                Some((n, d)) if n > 0 => {
                    let seconds = values.len() as f64 * f64::from(d) / f64::from(n);
                    format!("{seconds:.2} s")
                }
                _ => format!("{} frames", values.len()),
            };
            let _ = writeln!(
                s,
                "<text x=\"{LEFT}\" y=\"{0}\">0</text><text x=\"{right}\" y=\"{0}\" \
                 text-anchor=\"end\">{last}</text>",
                top + HEIGHT + 16.0
            );
        }
        s.push_str("</svg>\n");
        s
    }
}
