// SPDX-License-Identifier: MPL-2.0
//! Memory of the muxers: everything that is allocated is counted. Alone in its program, so that
//! nothing else is.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use nnv_bitstream::{Rational, SequenceHeader};
use nnv_mp4::file::FileMuxer;
use nnv_mp4::fragments::FragmentMuxer;
use nnv_mp4::{Codec, Data, Piece, Rotation, Sample, Track};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn tracks() -> Vec<Track> {
    let mut header = SequenceHeader::new("b", [7; 8], 64, 48, 8);
    header.frame_rate = Rational::new(25, 1);
    let video = Codec::Nnv(header.to_payload().unwrap());
    let sound = Codec::Opus {
        channels: 2,
        pre_skip: 312,
        rate: 48_000,
        gain: 0,
    };
    let track = |codec| Track {
        codec,
        language: None,
        rotation: Rotation::None,
    };
    vec![track(video), track(sound)]
}

fn sample(pts_ms: i64, ms: u64, size: usize, sync: bool) -> Sample<Vec<u8>> {
    Sample {
        data: Piece::Data(vec![7; size]),
        pts: pts_ms * 1_000_000,
        dts: None,
        duration: Some(ms * 1_000_000),
        decoded: None,
        sync,
    }
}

/// Gives frames of 1 kB and packets of 160 bytes to `push`; returns the most memory that was added.
fn most(
    minutes: i64,
    mut push: impl FnMut(usize, Sample<Vec<u8>>) -> Vec<Piece<Vec<u8>>>,
) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    for frame in 0..minutes * 60 * 25 {
        let ms = frame * 40;
        drop(push(0, sample(ms, 40, 1000, frame % 50 == 0)));
        for half in [0, 20] {
            drop(push(1, sample(ms + half, 20, 160, true)));
        }
    }
    MOST.load(Ordering::Relaxed) - before
}

#[test]
fn memory_of_fragments_does_not_grow_and_that_of_files_by_the_index() {
    let fragments = |minutes| {
        let mut muxer = FragmentMuxer::new(tracks(), Vec::new(), 2_000_000_000).unwrap();
        most(minutes, |index, sample| muxer.push(index, sample).unwrap())
    };
    let files = |minutes| {
        let mut muxer = FileMuxer::new(tracks()).unwrap();
        let waiting = most(minutes, |index, sample| muxer.push(index, sample).unwrap());
        // With the index, which is made at the end.
        let before = NOW.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let end: usize = muxer.end().unwrap().iter().map(Data::size).sum();
        let index = muxer.index_behind(&[]).unwrap().index.len();
        assert!(end > 0 && index > 0);
        waiting.max(MOST.load(Ordering::Relaxed))
    };
    let (short, long) = (fragments(10), fragments(120));
    println!("fragments of 2 s: {short} bytes for 10 minutes, {long} for 2 hours");
    assert!(
        long as f64 <= short as f64 * 1.1,
        "{short} and {long} bytes"
    );
    // Two fragments' worth at most: 2 × 2 s × (25 kB + 8 kB).
    assert!(long < 400_000, "{long} bytes");

    let (short, long) = (files(10), files(120));
    println!("finished files: {short} bytes for 10 minutes, {long} for 2 hours");
    let samples = 120 * 60 * (25 + 50);
    let each = long as f64 / samples as f64;
    println!("{each:.1} bytes a sample with the index");
    assert!(each < 120.0, "{each} bytes a sample");
}
