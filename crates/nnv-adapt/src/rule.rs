// SPDX-License-Identifier: MPL-2.0
//! The rule: additive or multiplicative increase until the delay grows or packets are lost, as in
//! Google's congestion control (draft-ietf-rmcat-gcc-02, with the trend line of later versions).

use std::collections::VecDeque;

use crate::path::{Packet, Path};
use crate::{Limits, Time};

/// Packets sent within this time are one group.
const BURST: f64 = 0.005;
/// Groups in the trend line.
const TREND: usize = 20;
/// Weight of the past in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// What a slope is multiplied with before it is compared with the threshold.
const GAIN: f64 = 4.0;
/// Most groups that the gain counts.
const MAX_GROUPS: f64 = 60.0;
/// Threshold in ms: where it begins, and within what it adapts.
const THRESHOLD: f64 = 12.5;
const THRESHOLDS: (f64, f64) = (6.0, 600.0);
/// How fast the threshold follows from below and from above, per ms.
const K_UP: f64 = 0.0087;
const K_DOWN: f64 = 0.039;
/// Seconds over the threshold that make an overuse.
const OVERUSE: f64 = 0.01;
/// Share of the received rate that is kept after an overuse.
const BETA: f64 = 0.85;
/// Growth per second far from the last congestion.
const GROWTH: f64 = 1.08;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usage {
    Normal,
    Over,
    Under,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_sent: Time,
    last_sent: Time,
    last_arrived: Time,
}

/// State of the rule.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    rate: f64,
    loss_rate: f64,
    group: Option<Group>,
    before: Option<Group>,
    /// Arrival in seconds, smoothed delay in ms.
    line: VecDeque<(f64, f64)>,
    begin: Option<Time>,
    delay: f64,
    smoothed: f64,
    groups: f64,
    threshold: f64,
    over_since: Option<Time>,
    last_trend: f64,
    usage: Usage,
    /// Mean and variance of the received rate at congestion.
    link: Option<(f64, f64)>,
    updated: Option<Time>,
    lost_until: Option<Time>,
}

impl Rule {
    pub fn new(rate: f64) -> Self {
        Self {
            rate,
            loss_rate: f64::INFINITY,
            group: None,
            before: None,
            line: VecDeque::new(),
            begin: None,
            delay: 0.0,
            smoothed: 0.0,
            groups: 0.0,
            threshold: THRESHOLD,
            over_since: None,
            last_trend: 0.0,
            usage: Usage::Normal,
            link: None,
            updated: None,
            lost_until: None,
        }
    }

    /// The rate in bit/s.
    pub fn rate(&self) -> f64 {
        self.rate.min(self.loss_rate)
    }

    /// Takes the packets of a report.
    pub fn report(&mut self, now: Time, packets: &[Packet], path: &Path, limits: Limits) {
        for packet in packets {
            let Some(arrived) = packet.arrived else {
                continue;
            };
            match &mut self.group {
                Some(group) if packet.sent < group.first_sent => {}
                Some(group) if packet.sent.since(group.first_sent) <= BURST => {
                    group.last_sent = group.last_sent.max(packet.sent);
                    group.last_arrived = group.last_arrived.max(arrived);
                }
                _ => {
                    let next = Group {
                        first_sent: packet.sent,
                        last_sent: packet.sent,
                        last_arrived: arrived,
                    };
                    if let Some(done) = self.group.replace(next)
                        && let Some(before) = self.before.replace(done)
                    {
                        self.follow(before, done);
                    }
                }
            }
        }
        self.adjust(now, path, limits);
    }

    /// Trend line over two groups' difference of delay.
    fn follow(&mut self, before: Group, group: Group) {
        let sent = group.last_sent.since(before.last_sent);
        let arrived = group.last_arrived.since(before.last_arrived);
        let begin = *self.begin.get_or_insert(group.last_arrived);
        self.groups = (self.groups + 1.0).min(MAX_GROUPS);
        self.delay += (arrived - sent) * 1e3;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.delay;
        if self.line.len() == TREND {
            self.line.pop_front();
        }
        self.line
            .push_back((group.last_arrived.since(begin) * 1e3, self.smoothed));
        if self.line.len() < TREND {
            return;
        }
        let n = self.line.len() as f64;
        let mean_x = self.line.iter().map(|p| p.0).sum::<f64>() / n;
        let mean_y = self.line.iter().map(|p| p.1).sum::<f64>() / n;
        let over = self
            .line
            .iter()
            .map(|p| (p.0 - mean_x).powi(2))
            .sum::<f64>();
        if over <= 0.0 {
            return;
        }
        let both = self
            .line
            .iter()
            .map(|p| (p.0 - mean_x) * (p.1 - mean_y))
            .sum::<f64>();
        let slope = both / over;
        self.detect(slope, group.last_arrived, arrived.clamp(0.0, 0.1) * 1e3);
    }

    fn detect(&mut self, slope: f64, at: Time, elapsed_ms: f64) {
        let trend = slope * self.groups * GAIN;
        self.usage = if trend > self.threshold {
            let since = *self.over_since.get_or_insert(at);
            if at.since(since) > OVERUSE && trend >= self.last_trend {
                Usage::Over
            } else {
                self.usage
            }
        } else {
            self.over_since = None;
            if trend < -self.threshold {
                Usage::Under
            } else {
                Usage::Normal
            }
        };
        self.last_trend = trend;
        // A single spike does not move the threshold.
        if trend.abs() <= self.threshold + 15.0 {
            let k = if trend.abs() < self.threshold {
                K_DOWN
            } else {
                K_UP
            };
            self.threshold += k * (trend.abs() - self.threshold) * elapsed_ms;
            self.threshold = self.threshold.clamp(THRESHOLDS.0, THRESHOLDS.1);
        }
    }

    fn adjust(&mut self, now: Time, path: &Path, limits: Limits) {
        let elapsed = self.updated.map_or(0.0, |t| now.since(t).clamp(0.0, 1.0));
        self.updated = Some(now);
        let received = path.received(0.5, 0.0);
        match self.usage {
            Usage::Over => {
                if received > 0.0 {
                    self.rate = self.rate.min(BETA * received);
                    let (mean, var) = self.link.unwrap_or((received, 0.0025));
                    let off = (received - mean) / mean;
                    self.link = Some((
                        mean + 0.05 * (received - mean),
                        (0.95 * var + 0.05 * off * off).clamp(0.0004, 0.0025),
                    ));
                }
                self.usage = Usage::Normal;
            }
            // The queue drains.
            Usage::Under => {}
            Usage::Normal => {
                let near = self.link.is_some_and(|(mean, var)| {
                    let off = (received - mean) / mean;
                    if off > 3.0 * var.sqrt() {
                        self.link = None;
                        return false;
                    }
                    off > -3.0 * var.sqrt()
                });
                if near {
                    // About a packet in each response time.
                    self.rate += 9600.0 / 0.2 * elapsed;
                } else {
                    self.rate *= GROWTH.powf(elapsed);
                }
                if received > 0.0 {
                    self.rate = self.rate.min(1.5 * received + 10e3);
                }
            }
        }
        let lost = path.lost();
        if lost > 0.1 {
            if self
                .lost_until
                .is_none_or(|t| now >= t || t.since(now) > 1.0)
            {
                self.loss_rate = self.rate() * (1.0 - 0.5 * lost);
                self.lost_until = Some(now.plus(0.3));
            }
        } else if lost < 0.02 {
            self.loss_rate *= 1.05_f64.powf(elapsed);
            if self.loss_rate > 2.0 * self.rate {
                self.loss_rate = f64::INFINITY;
            }
        }
        self.rate = limits.clamp(self.rate);
        self.loss_rate = self.loss_rate.max(limits.min());
    }
}
