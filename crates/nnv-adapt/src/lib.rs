// SPDX-License-Identifier: MPL-2.0
//! What rate and size a stream may have: from what a receiver reports of the path, and from what
//! the viewer does. No GStreamer and no clock in here: the same calls give the same decisions.
//!
//! ```
//! use nnv_adapt::{Controller, Limits, Mode, Packet, Time};
//!
//! let limits = Limits::new(100_000.0, 4_000_000.0).unwrap();
//! let mut controller = Controller::new(Mode::rule(), limits, 500_000.0);
//! let at = |ms| Time::from_ms(ms);
//! let packets: Vec<_> = (0..20)
//!     .map(|i| Packet { sent: at(5 * i), arrived: Some(at(5 * i + 40)), bytes: 1200 })
//!     .collect();
//! controller.feedback(at(150), &packets);
//! assert!(controller.decide(at(150)).bitrate > 0.0);
//! ```

pub mod abr;
mod controller;
mod forecast;
mod ladder;
mod path;
mod qoe;
mod rule;
pub mod sim;
mod time;
mod trace;
mod viewer;

pub use controller::{Controller, Decision, Limits, Mode, Tuning};
pub use forecast::{Forecast, Harmonic, Neural, Outlook};
pub use ladder::{Ladder, Rung};
pub use path::{Packet, ReceiverReport};
pub use qoe::Qoe;
pub use time::Time;
pub use trace::{Trace, TraceError};
pub use viewer::Viewer;
