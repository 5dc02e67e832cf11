// SPDX-License-Identifier: MPL-2.0
//! Super-resolution of raw video, with no GStreamer in it.
//!
//! A network makes the luma of the larger picture, a plain bicubic kernel its chroma. [`Upscaler`]
//! does both, tile by tile where a picture is too large for memory, and remembers the last result
//! for pictures that repeat.
//!
//! ```no_run
//! use nnv_nn::{Cancel, ModelSource, RuntimeOptions, SrBundle};
//! use nnv_sr::{Format, Job, Layout, Planes, PlanesMut, SourceQuantizer, Upscaler};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bundle = SrBundle::open(&ModelSource::Embedded("balanced".into()))?;
//! let network = bundle.network(2, &RuntimeOptions::default())?;
//! let layout = Layout::new(Format::Gray8, 640, 360)?;
//! let mut upscaler = Upscaler::new(layout, network, 0)?;
//! let small = vec![128; 640 * 360];
//! let mut large = vec![0; 1280 * 720];
//! let job = Job {
//!     input: Planes::new(layout, &[&small], &[640])?,
//!     output: PlanesMut::new(upscaler.output(), vec![&mut large], &[1280])?,
//!     strength: 1.0,
//!     quantizer: SourceQuantizer::Unknown,
//!     late: false,
//! };
//! upscaler.run(&mut [job], &Cancel::new())?;
//! # Ok(()) }
//! ```

mod border;
mod ensemble;
mod kernel;
mod layout;
mod plain;
mod rating;
mod rows;
mod source_quantizer;
mod tiles;
mod upscaler;

pub use ensemble::Ensemble;
pub use layout::{Format, Layout, LayoutError, MAX_SIZE, Planes, PlanesMut};
pub use plain::PlainScaler;
pub use rating::{Codec, Evidence, Rater, Rating};
pub use source_quantizer::SourceQuantizer;
pub use upscaler::{Change, Done, Job, Outcome, SrError, Upscaler};
