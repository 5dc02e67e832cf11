// SPDX-License-Identifier: MPL-2.0
//! What reports say of a path: rate, queue, loss.

use std::collections::VecDeque;

use crate::Time;

/// A packet as the receiver saw it. Sender and receiver need not share a clock: only differences of
/// differences count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// When it left, by the sender's clock.
    pub sent: Time,
    /// When it came, by the receiver's clock; `None`: not until the report.
    pub arrived: Option<Time>,
    /// Its size.
    pub bytes: u32,
}

/// What an RTCP receiver report says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReceiverReport {
    /// Share of the packets since the last report that are missing, 0 to 1.
    pub lost: f64,
    /// Interarrival jitter in seconds.
    pub jitter: f64,
    /// Round-trip time in seconds; 0: not known.
    pub round_trip: f64,
}

impl ReceiverReport {
    /// The report where it can be true: shares within 0 to 1, times below a minute. `None` where
    /// it cannot.
    pub fn sound(self) -> Option<Self> {
        let fits = (0.0..=1.0).contains(&self.lost)
            && (0.0..60.0).contains(&self.jitter)
            && (0.0..60.0).contains(&self.round_trip);
        fits.then_some(self)
    }
}

/// Most packets that are remembered, and taken of one report.
const MAX_PACKETS: usize = 20_000;
/// Largest packet.
const MAX_BYTES: u32 = 65_536;
/// A packet's times further than this (s) from the last one's are not believed.
const MAX_LEAP: f64 = 60.0;
/// So many reports in a row that are not believed begin a new path: clocks may have been set.
const MAX_REFUSED: u32 = 20;
/// Seconds over which the least delay is looked for: sender's and receiver's clocks drift by less
/// than a millisecond in them.
const BASE_WINDOW: f64 = 15.0;
/// Seconds of packets of which the least delay is that of the queue.
const STANDING: f64 = 0.2;
/// Seconds of packets that are kept.
const WINDOW: f64 = 1.5;

/// What is known of a path.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path {
    packets: VecDeque<Packet>,
    /// Least of arrival minus departure by whole seconds of departure.
    least: VecDeque<(i64, f64)>,
    /// The newest packet that came.
    newest: Option<(Time, Time)>,
    heard: Option<Time>,
    queue: f64,
    refused: u32,
}

impl Path {
    /// Takes a report that came at `now`. Returns the packets that were believed.
    pub fn report(&mut self, now: Time, packets: &[Packet]) -> Vec<Packet> {
        let believed: Vec<_> = packets
            .iter()
            .take(MAX_PACKETS)
            .copied()
            .filter(|p| p.bytes <= MAX_BYTES && self.believes(now, p))
            .collect();
        if believed.is_empty() {
            self.refused += u32::from(!packets.is_empty());
            if self.refused >= MAX_REFUSED {
                *self = Self::default();
            }
            return believed;
        }
        self.refused = 0;
        self.heard = Some(now);
        for &packet in &believed {
            if self.packets.len() == MAX_PACKETS {
                self.packets.pop_front();
            }
            self.packets.push_back(packet);
            let Some(arrived) = packet.arrived else {
                continue;
            };
            let delay = arrived.since(packet.sent);
            let second = packet.sent.us().div_euclid(1_000_000);
            match self.least.back_mut() {
                Some((last, least)) if *last >= second => *least = least.min(delay),
                _ => self.least.push_back((second, delay)),
            }
            if self.newest.is_none_or(|(sent, _)| packet.sent >= sent) {
                self.newest = Some((packet.sent, arrived));
            }
        }
        if let Some((sent, arrived)) = self.newest {
            let oldest = sent.us().div_euclid(1_000_000) - BASE_WINDOW as i64;
            self.least.retain(|(second, _)| *second >= oldest);
            while self
                .packets
                .front()
                .is_some_and(|p| sent.since(p.sent) > WINDOW)
            {
                self.packets.pop_front();
            }
            // What stands: the least of the last packets. One frame that takes its time on a slow
            // path, or a late wake-up, is no queue.
            let last = self
                .packets
                .iter()
                .rev()
                .take_while(|p| sent.since(p.sent) < STANDING);
            let delays = last.filter_map(|p| Some(p.arrived?.since(p.sent)));
            let least = delays.fold(arrived.since(sent), f64::min);
            self.queue = (least - self.base()).max(0.0);
        }
        believed
    }

    fn believes(&self, now: Time, packet: &Packet) -> bool {
        let near = |a: Time, b: Time| a.since(b).abs() < MAX_LEAP;
        near(now, packet.sent)
            && match (self.newest, packet.arrived) {
                (Some((_, last)), Some(arrived)) => near(last, arrived),
                _ => true,
            }
    }

    fn base(&self) -> f64 {
        let least = self
            .least
            .iter()
            .map(|(_, d)| *d)
            .fold(f64::INFINITY, f64::min);
        if least.is_finite() { least } else { 0.0 }
    }

    /// Seconds that packets wait in queues: the least of those sent lately.
    pub fn queue(&self) -> f64 {
        self.queue
    }

    /// When the newest packet that came was sent.
    pub fn acknowledged(&self) -> Option<Time> {
        self.newest.map(|(sent, _)| sent)
    }

    /// Seconds since the last report.
    pub fn silence(&self, now: Time) -> f64 {
        self.heard.map_or(0.0, |heard| now.since(heard).max(0.0))
    }

    /// Bits a second that came in the `seconds` before the newest packet, or before now where
    /// nothing has been heard since.
    pub fn received(&self, seconds: f64, silence: f64) -> f64 {
        let Some((_, newest)) = self.newest else {
            return 0.0;
        };
        let bits: f64 = self
            .packets
            .iter()
            .filter(|p| p.arrived.is_some_and(|a| newest.since(a) < seconds))
            .map(|p| f64::from(p.bytes) * 8.0)
            .sum();
        bits / (seconds + silence)
    }

    /// Share of lost packets among those of the last second or so.
    pub fn lost(&self) -> f64 {
        let lost = self.packets.iter().filter(|p| p.arrived.is_none()).count();
        lost as f64 / self.packets.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sent: i64, delay: i64) -> Packet {
        Packet {
            sent: Time::from_ms(sent),
            arrived: Some(Time::from_ms(sent + delay + 1_000_000)),
            bytes: 1000,
        }
    }

    #[test]
    fn rate_queue_and_loss_are_those_of_the_packets() {
        let mut path = Path::default();
        let packets: Vec<_> = (0..100).map(|i| packet(10 * i, 40)).collect();
        path.report(Time::from_ms(1040), &packets);
        assert!((path.received(0.5, 0.0) - 800e3).abs() < 1e3);
        assert_eq!((path.queue(), path.lost()), (0.0, 0.0));
        let late: Vec<_> = (100..130).map(|i| packet(10 * i, 90)).collect();
        path.report(Time::from_ms(1400), &late);
        assert!((path.queue() - 0.05).abs() < 1e-9);
        let gone = Packet {
            arrived: None,
            ..packet(1110, 0)
        };
        path.report(Time::from_ms(1450), &[gone; 14]);
        assert!((path.lost() - 0.1).abs() < 0.01);
        assert_eq!(path.silence(Time::from_ms(1950)), 0.5);
    }

    #[test]
    fn nonsense_is_not_believed_and_bounded() {
        let mut path = Path::default();
        path.report(Time::from_ms(100), &[packet(10, 40)]);
        let wild = [
            Packet {
                sent: Time::from_us(i64::MAX),
                ..packet(0, 0)
            },
            Packet {
                arrived: Some(Time::from_us(i64::MIN)),
                ..packet(20, 0)
            },
            Packet {
                bytes: u32::MAX,
                ..packet(20, 0)
            },
        ];
        assert!(path.report(Time::from_ms(110), &wild).is_empty());
        assert!(path.queue() < 1e-9);
        // A million packets in one report, of one time.
        path.report(Time::from_ms(120), &vec![packet(20, 40); 1_000_000]);
        assert!(path.packets.len() <= MAX_PACKETS);
        // Times that stay elsewhere are a new path in the end.
        for i in 0..MAX_REFUSED + 1 {
            path.report(
                Time::from_seconds(5000.0 + f64::from(i)),
                &[packet(5_000_000, 1_000_000)],
            );
        }
        assert!(path.received(1.0, 0.0) > 0.0);
    }

    #[test]
    fn receiver_reports_that_cannot_be_are_refused() {
        let good = ReceiverReport {
            lost: 0.1,
            jitter: 0.01,
            round_trip: 0.05,
        };
        assert_eq!(good.sound(), Some(good));
        for bad in [
            ReceiverReport {
                lost: f64::NAN,
                ..good
            },
            ReceiverReport { lost: 1.5, ..good },
            ReceiverReport {
                jitter: -1.0,
                ..good
            },
            ReceiverReport {
                round_trip: 1e9,
                ..good
            },
        ] {
            assert_eq!(bad.sound(), None, "{bad:?}");
        }
    }
}
