// SPDX-License-Identifier: MPL-2.0
//! Memory is taken for pictures that are there, not for those that a header claims.

use std::process::Command;

use nnv_bitstream::{SequenceHeader, UnitType, write_unit};

use crate::util::*;

const CHILD: &str = "memory::a_huge_claim_alone";
/// MiB that a stream of a few bytes may take.
const MOST: u64 = 50;

/// Most memory that this process had at one time since it was last asked to forget, in MiB.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

/// Run by the test below, in a process of its own.
#[test]
#[ignore = "run by a_few_bytes_take_little_memory"]
fn a_huge_claim_alone() {
    within(|| {
        let units = encode(&i420(64, 48), 2, &[]);
        let file = TempFile::with("small.nnv", &join(&units));
        // Networks and what GStreamer keeps are there from now on.
        assert_eq!(decode(file.path(), "").sound().shown.len(), 2);
        let sequence = nnv_bitstream::AccessUnit::parse(&bytes(&units[0]))
            .unwrap()
            .sequence
            .unwrap();
        let header = SequenceHeader {
            width: 8192,
            height: 8192,
            cost: None,
            ..sequence
        };
        let mut data = Vec::new();
        write_unit(&mut data, UnitType::Sequence, &header.to_payload().unwrap()).unwrap();
        // A key frame with quantizer 0 and nothing in it.
        write_unit(&mut data, UnitType::Frame, &[4, 0, 0, 0, 0]).unwrap();
        assert!(data.len() < 100);
        let file = TempFile::with("huge.nnv", &data);
        // Forget the peak so far.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = peak().unwrap();
        assert!(decode(file.path(), "").shown.is_empty());
        let taken = peak().unwrap() - before;
        println!("{} bytes took {taken} MiB", data.len());
        assert!(taken <= MOST, "{taken} MiB");
    });
}

#[test]
fn a_few_bytes_take_little_memory() {
    if peak().is_none() || std::fs::write("/proc/self/clear_refs", "5").is_err() {
        eprintln!("SKIPPED: this system does not tell the peak of memory (/proc/self)");
        return;
    }
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
    print!("{text}");
}

#[test]
fn scaling_beyond_the_limit_is_one_clear_error() {
    within(|| {
        let play = |properties: &str| {
            play(&launch(&format!(
                "videotestsrc num-buffers=1 ! video/x-raw,format=I420,width=64,height=48 ! nnsr \
                 scale=2 {properties} ! fakesink name=out"
            )))
        };
        assert_eq!(play("max-pixels=12288").sound().shown.len(), 1);
        let refused = play("max-pixels=12287");
        assert!(refused.errors[0].contains("128x96"), "{:?}", refused.errors);
        assert!(
            refused.errors[0].contains("max-pixels"),
            "{:?}",
            refused.errors
        );
    });
}
