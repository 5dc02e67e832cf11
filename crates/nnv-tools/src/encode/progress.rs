// SPDX-License-Identifier: MPL-2.0
//! How far it is: a bar on a terminal, else a line now and then.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Between two lines where nobody watches.
const SELDOM: Duration = Duration::from_secs(30);
/// Between two changes of the bar.
const OFTEN: Duration = Duration::from_millis(200);
const WIDTH: usize = 30;

/// Progress of one stage.
pub struct Progress {
    stage: &'static str,
    /// All that there is to do, where it is known.
    total: Option<u64>,
    started: Instant,
    told: Instant,
    terminal: bool,
}

/// Seconds for people.
fn clock(seconds: f64) -> String {
    let s = seconds.round() as u64;
    format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

impl Progress {
    /// Of `total` frames.
    pub fn new(stage: &'static str, total: Option<u64>) -> Self {
        Self {
            stage,
            total,
            started: Instant::now(),
            told: Instant::now(),
            terminal: stderr().is_terminal(),
        }
    }

    /// So many frames are done.
    pub fn frames(&mut self, done: u64) {
        let pause = if self.terminal { OFTEN } else { SELDOM };
        if self.told.elapsed() < pause {
            return;
        }
        self.told = Instant::now();
        let text = self.text(done, self.started.elapsed().as_secs_f64());
        // Nobody minds where it cannot be written.
        let _ = match self.terminal {
            true => write!(stderr(), "\r\x1b[K{text}"),
            false => writeln!(stderr(), "nnv: {text}"),
        };
    }

    fn text(&self, done: u64, seconds: f64) -> String {
        let Some(total) = self.total.filter(|total| *total > 0) else {
            return format!("{}: {done} frames", self.stage);
        };
        let share = (done as f64 / total as f64).min(1.0);
        let full = (share * WIDTH as f64) as usize;
        let left = match done {
            0 => "unknown".into(),
            _ => clock(seconds * (1.0 - share) / share),
        };
        format!(
            "{} [{}{}] {done} of {total} frames, {left} left",
            self.stage,
            "#".repeat(full),
            ".".repeat(WIDTH - full),
        )
    }

    /// The stage is over: the bar goes.
    pub fn finish(self) {
        if self.terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_told() {
        let progress = Progress::new("code", Some(400));
        let text = progress.text(100, 60.0);
        assert!(text.contains("100 of 400 frames, 0:03:00 left"), "{text}");
        assert!(progress.text(0, 1.0).contains("unknown left"));
        assert!(progress.text(400, 240.0).contains("0:00:00 left"));
    }
}
