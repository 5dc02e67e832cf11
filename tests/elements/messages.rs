// SPDX-License-Identifier: MPL-2.0
//! Messages and queries go out while no lock is held: whoever hears of them at once, in the same
//! thread, may ask the element.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use gst::prelude::*;

use crate::util::*;

/// Asks an element for all that it tells: properties, latency, position, caps.
fn ask(element: &gst::Element) {
    for property in element.list_properties() {
        if property.flags().contains(gst::glib::ParamFlags::READABLE) {
            let _ = element.property_value(property.name());
        }
    }
    for pad in element.pads() {
        pad.query(&mut gst::query::Latency::new());
        pad.query_position::<gst::ClockTime>();
        pad.query_caps(None);
    }
}

/// Plays to the end with a handler that asks whoever posts, and gives the number of messages of
/// the element of this name.
fn ask_whoever_posts(pipeline: &gst::Element, name: &'static str) -> u32 {
    let heard = Arc::new(AtomicU32::new(0));
    let count = heard.clone();
    let bus = pipeline.bus().unwrap();
    bus.set_sync_handler(move |_, message| {
        if let Some(element) = message
            .src()
            .and_then(|src| src.downcast_ref::<gst::Element>())
            && element.name() == name
            && !matches!(message.view(), gst::MessageView::StateChanged(_))
        {
            count.fetch_add(1, Ordering::Relaxed);
            ask(element);
        }
        gst::BusSyncReply::Pass
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let ended = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    bus.unset_sync_handler();
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(matches!(ended.unwrap().view(), gst::MessageView::Eos(_)));
    heard.load(Ordering::Relaxed)
}

#[test]
fn whoever_posts_a_message_can_be_asked_at_once() {
    within(|| {
        // A tag that does not fit is told.
        let long = "x".repeat(3000);
        let pipeline = launch(&format!(
            "videotestsrc num-buffers=3 ! video/x-raw,width=64,height=48,framerate=25/1 ! \
             taginject tags=\"title=(string){long}\" ! nnvenc name=enc ! nnvparse ! \
             nnvdec name=dec ! fakesink"
        ));
        assert!(ask_whoever_posts(&pipeline, "enc") > 0);
        // Frames that come too late are told; a sink that waits asks for that.
        let pipeline = launch(
            "videotestsrc num-buffers=4 ! video/x-raw,width=32,height=32,framerate=25/1 ! \
             nnsr name=sr ! fakesink name=out",
        );
        let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
        let out = bin.by_name("out").unwrap().static_pad("sink").unwrap();
        out.add_probe(gst::PadProbeType::BUFFER, |pad, _| {
            let late = gst::event::Qos::builder(gst::QOSType::Underflow, 2.0, 3_000_000_000)
                .timestamp(gst::ClockTime::from_seconds(1))
                .build();
            pad.push_event(late);
            gst::PadProbeReturn::Ok
        });
        assert!(ask_whoever_posts(&pipeline, "sr") > 0);
    });
}

#[test]
fn whoever_is_asked_may_ask_the_parser_back() {
    within(|| {
        let units = encode_scene(&info(gst_video::VideoFormat::I420, 64, 48), picture, 4, &[]);
        let file = TempFile::with("asked.nnv", &join(&units));
        let pipeline = launch(&format!(
            "filesrc location={} ! queue ! nnvparse name=parse ! fakesink",
            file.0.display()
        ));
        let bin = pipeline.downcast_ref::<gst::Bin>().unwrap();
        let parse = bin.by_name("parse").unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        let src = parse.static_pad("src").unwrap();
        let probe = gst::PadProbeType::QUERY_UPSTREAM | gst::PadProbeType::PUSH;
        parse
            .static_pad("sink")
            .unwrap()
            .add_probe(probe, move |_, probe| {
                if let Some(gst::PadProbeData::Query(query)) = &probe.data
                    && query.type_() == gst::QueryType::Seeking
                {
                    count.fetch_add(1, Ordering::Relaxed);
                    // One that leads nowhere.
                    let (flags, kind) = (gst::SeekFlags::empty(), gst::SeekType::Set);
                    let at = gst::format::Default::from_u64(3);
                    let none = gst::format::Default::NONE;
                    src.send_event(gst::event::Seek::new(
                        1.0,
                        flags,
                        kind,
                        at,
                        gst::SeekType::None,
                        none,
                    ));
                }
                gst::PadProbeReturn::Ok
            });
        let mut outcome = Outcome::default();
        pipeline.set_state(gst::State::Playing).unwrap();
        wait(&pipeline, &mut outcome);
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(outcome.eos, "{:?}", outcome.errors);
        assert!(asked.load(Ordering::Relaxed) > 0);
    });
}
