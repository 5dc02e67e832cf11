// SPDX-License-Identifier: MPL-2.0
//! Reports of losses on their way to the encoder.

use std::sync::Mutex;

use nnv_codec::config::ErrorResilience;
use nnv_codec::encode::LossReport;

use crate::common::{Loss, lock};

/// Reports that wait for the next frame; more than one frame can be behind is old news.
const MOST: usize = 256;

/// Reports that the encoder hears of with the next frame: while it codes one, it cannot be told,
/// and the thread that brings them must not wait.
#[derive(Debug, Default)]
pub struct Losses(Mutex<Vec<LossReport>>);

impl Losses {
    /// Takes an upstream event, if it is a report. A request for a key frame is one, too, where
    /// there is another answer to it, unless it insists (`all-headers`, as a full intra request of
    /// RTCP does) or is for a later time.
    pub fn take(&self, event: &gst::EventRef, resilience: ErrorResilience) -> bool {
        let report = match Loss::parse(event) {
            Some(loss) => loss.map(|Loss { group, number }| LossReport::Frame { group, number }),
            None if resilience == ErrorResilience::Ltr => {
                let request = gst_video::UpstreamForceKeyUnitEvent::parse(event).ok();
                match request.filter(|r| !r.all_headers && r.running_time.is_none()) {
                    Some(_) => Some(LossReport::Unknown),
                    None => return false,
                }
            }
            None => return false,
        };
        let mut waiting = lock(&self.0);
        if waiting.len() < MOST {
            waiting.extend(report);
        }
        true
    }

    /// What was reported since this was called last, that which says most first.
    pub fn drain(&self) -> Vec<LossReport> {
        let mut reports = std::mem::take(&mut *lock(&self.0));
        reports.sort_by_key(|report| *report == LossReport::Unknown);
        // A depayloader and a decoder complain of the same frame.
        reports.dedup();
        reports
    }
}
