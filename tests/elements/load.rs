// SPDX-License-Identifier: MPL-2.0
//! More frames than there is time for. The clock is a test's own: nothing depends on the machine.

use gst::prelude::*;

use super::util::*;

struct Live {
    h: gst_check::Harness,
    source: gst::Pad,
}

/// An encoder below a source that says it is live, with a clock that stands still.
fn live(properties: &[(&str, &str)]) -> Live {
    let mut h = gst_check::Harness::with_element(&element("nnvenc", properties), None, Some("src"));
    // The harness's own source pad answers latency queries as one that is not live.
    let source = gst::Pad::builder(gst::PadDirection::Src)
        .name("live")
        .query_function(|pad, parent, query| match query.view_mut() {
            gst::QueryViewMut::Latency(latency) => {
                latency.set(true, ms(40), gst::ClockTime::NONE);
                true
            }
            _ => gst::Pad::query_default(pad, parent, query),
        })
        .build();
    let sink = h.element().unwrap().static_pad("sink").unwrap();
    source.link(&sink).unwrap();
    source.set_active(true).unwrap();
    h.use_testclock();
    h.play();
    let info = i420(64, 48);
    source.push_event(gst::event::StreamStart::new("live"));
    source.push_event(gst::event::Caps::new(&info.to_caps().unwrap()));
    let segment = gst::FormattedSegment::<gst::ClockTime>::new();
    source.push_event(gst::event::Segment::new(&segment));
    Live { h, source }
}

/// Pushes frame `t`, 40 ms long, that comes `late` ms after its time.
fn push(live: &mut Live, t: u32, late: u64) {
    let info = i420(64, 48);
    live.h.set_time(ms(40 * u64::from(t) + late)).unwrap();
    live.source.push(buffer(&info, t, 0)).unwrap();
}

fn stat(h: &gst_check::Harness, name: &str) -> u64 {
    let stats = h.element().unwrap().property::<gst::Structure>("stats");
    stats.get(name).unwrap()
}

/// Warnings, and dropped frames by the last QoS message.
fn heard(bus: &gst::Bus) -> (usize, Vec<u64>) {
    let (mut warnings, mut dropped) = (0, Vec::new());
    while let Some(message) = bus.pop() {
        match message.view() {
            gst::MessageView::Warning(w) => {
                assert!(w.error().to_string().contains("no time"), "{w:?}");
                warnings += 1;
            }
            gst::MessageView::Qos(q) => match q.stats() {
                (_, gst::GenericFormattedValue::Buffers(Some(n))) => dropped.push(*n),
                other => panic!("{other:?}"),
            },
            _ => {}
        }
    }
    (warnings, dropped)
}

fn times(units: &[gst::Buffer]) -> Vec<u64> {
    units.iter().map(|u| u.pts().unwrap().mseconds()).collect()
}

#[test]
fn late_frames_of_a_live_source_are_left_out() {
    within(|| {
        let mut live = live(&[("threads", "1"), ("frame-checksum", "true")]);
        let encoder = live.h.element().unwrap();
        let bus = gst::Bus::new();
        encoder.set_bus(Some(&bus));
        // In time, if 50 ms after their time: that is the source's own delay.
        for t in 0..5 {
            push(&mut live, t, 50);
        }
        assert!(encoder.property::<bool>("qos"), "upstream is live");
        assert_eq!(stat(&live.h, "dropped"), 0);
        // As if a frame had taken 500 ms: those that waited meanwhile are late.
        for t in 5..17 {
            push(&mut live, t, 555 - 40 * u64::from(t - 5));
        }
        for t in 17..20 {
            push(&mut live, t, 80);
        }
        let units = pull_all(&mut live.h);
        let left: Vec<u64> = (0..20).map(|t| 40 * t).collect();
        let left: Vec<u64> = left
            .into_iter()
            .filter(|t| !times(&units).contains(t))
            .collect();
        // 505 to 105 ms late; the bound is 100 ms.
        assert_eq!(left, (5..16).map(|t| 40 * t).collect::<Vec<u64>>());
        assert_eq!(stat(&live.h, "dropped"), 11);
        assert_eq!(heard(&bus), (1, (1..=11).collect()));
        let effort: String = encoder
            .property::<gst::Structure>("stats")
            .get("effort")
            .unwrap();
        assert_ne!(effort, "medium");
        // What is left decodes as it is.
        let file = TempFile::with("late.nnv", &join(&units));
        let shown = decode(file.path(), "").sound().shown;
        assert_eq!(shown.len(), 9);
        encoder.set_bus(None);
    });
}

#[test]
fn qos_can_be_turned_off_and_the_effort_be_fixed() {
    within(|| {
        let late = |properties: &[(&str, &str)]| {
            let mut live = live(properties);
            for t in 0..12 {
                push(&mut live, t, if t < 4 { 0 } else { 1000 });
            }
            let effort: String = live
                .h
                .element()
                .unwrap()
                .property::<gst::Structure>("stats")
                .get("effort")
                .unwrap();
            (pull_all(&mut live.h).len(), effort)
        };
        assert_eq!(late(&[("qos", "false")]), (12, "medium".into()));
        let (coded, effort) = late(&[]);
        assert!(coded == 4 && effort != "medium", "{coded} {effort}");
        assert_eq!(late(&[("speed-control", "fixed")]), (4, "medium".into()));
    });
}

#[test]
fn a_requested_key_frame_outlives_a_late_frame() {
    within(|| {
        let mut live = live(&[("key-int-max", "0")]);
        for t in 0..4 {
            push(&mut live, t, 0);
        }
        let request = gst_video::UpstreamForceKeyUnitEvent::builder().build();
        live.h.push_upstream_event(request);
        push(&mut live, 4, 400);
        push(&mut live, 14, 0);
        push(&mut live, 15, 0);
        let units = pull_all(&mut live.h);
        let keys = units.iter().filter(|u| is_key(u)).cloned();
        assert_eq!(times(&keys.collect::<Vec<_>>()), [0, 560]);
    });
}

#[test]
fn a_late_sink_is_obeyed_where_qos_is_on() {
    within(|| {
        for (qos, reordered) in [("true", "0"), ("true", "7"), ("false", "0")] {
            let info = i420(64, 48);
            let mut h = encoder(
                &info,
                &[("qos", qos), ("bframes", reordered), ("lookahead", "0")],
            );
            for t in 0..75 {
                if t == 10 {
                    // The frame at 0.2 s came half a second too late.
                    let late = gst::event::Qos::new(
                        gst::QOSType::Underflow,
                        2.0,
                        500_000_000,
                        Some(ms(200)),
                    );
                    h.push_upstream_event(late);
                }
                h.push(buffer(&info, t, 0)).unwrap();
            }
            h.push_event(gst::event::Eos::new());
            let dropped = stat(&h, "dropped");
            let frames = stat(&h, "frames");
            assert_eq!(frames + dropped, 75);
            assert_eq!(pull_all(&mut h).len() as u64, frames);
            // From 0.4 s to 1.2 s.
            assert_eq!(dropped, if qos == "true" { 20 } else { 0 }, "{reordered}");
        }
    });
}
