// SPDX-License-Identifier: MPL-2.0
//! Signatures: whole streams are verified, whatever is changed is told.

use gst::prelude::*;
use nnv_bitstream::{AccessUnit, UnitType, write_unit};
use nnv_crypt::keys::{new_signing_key, public_key_text, signing_key_text};

use crate::util::*;

/// Plays a pipeline; with the statistics of its element `v`.
fn play_with_stats(description: &str) -> (Outcome, gst::Structure) {
    let pipeline = launch(description);
    let outcome = play(&pipeline);
    let element = pipeline.downcast_ref::<gst::Bin>().unwrap().by_name("v");
    (outcome, element.unwrap().property("stats"))
}

fn play_text(description: &str) -> Outcome {
    play(&launch(description))
}

struct Keys {
    secret: TempFile,
    public: String,
}

fn keys() -> Keys {
    let key = new_signing_key().unwrap();
    Keys {
        secret: TempFile::with("sign.key", signing_key_text(&key).as_bytes()),
        public: public_key_text(&key.verifying_key()),
    }
}

/// A signed stream of three groups of six frames, in access units.
fn signed(keys: &Keys, properties: &str) -> Vec<Vec<u8>> {
    let p = [
        ("key-int-max", "6"),
        ("frame-checksum", "true"),
        ("bframes", "2"),
    ];
    let units = encode(&i420(64, 48), 18, &p);
    let source = TempFile::with("plain.nnv", &join(&units));
    let file = TempFile::new("signed.nnv");
    let outcome = play_text(&format!(
        "filesrc location={} ! nnvparse ! nnvsign key-file={} {properties} ! filesink location={}",
        source.path(),
        keys.secret.path(),
        file.path()
    ));
    assert!(
        outcome.errors.is_empty() && outcome.eos,
        "{:?}",
        outcome.errors
    );
    let data = std::fs::read(&file.0).unwrap();
    let mut scanner = nnv_bitstream::AccessUnitScanner::default();
    let (mut at, mut units) = (0, Vec::new());
    while let nnv_bitstream::AccessUnitScan::Unit(unit) = scanner.scan(at as u64, &data[at..], true)
    {
        units.push(data[at..at + unit.len].to_vec());
        at += unit.len;
    }
    assert_eq!((units.len(), at), (18, data.len()));
    units
}

struct Verdict {
    statuses: Vec<String>,
    stats: gst::Structure,
    outcome: Outcome,
}

fn verify(units: &[Vec<u8>], key: &str) -> Verdict {
    let file = TempFile::with("verify.nnv", &units.concat());
    let (outcome, stats) = play_with_stats(&format!(
        "filesrc location={} ! nnvparse ! nnvverify name=v key={key} ! nnvdec ! fakesink \
         name=out sync=false",
        file.path()
    ));
    let statuses = outcome
        .posted
        .iter()
        .filter(|s| s.name() == "nnv-signature")
        .map(|s| s.get::<String>("status").unwrap())
        .collect();
    Verdict {
        statuses,
        stats,
        outcome,
    }
}

fn count(verdict: &Verdict, name: &str) -> u64 {
    verdict.stats.get(name).unwrap()
}

#[test]
fn a_signed_stream_is_verified_and_shows_the_same() {
    within(|| {
        let keys = keys();
        for properties in ["", "time=true interval=4"] {
            let verdict = verify(&signed(&keys, properties), &keys.public);
            let runs = if properties.is_empty() { 3 } else { 6 };
            assert_eq!(verdict.statuses, vec!["verified"; runs]);
            assert_eq!(count(&verdict, "verified-frames"), 18);
            assert_eq!(verdict.outcome.sound().shown.len(), 18);
        }
    });
}

#[test]
fn whatever_is_changed_is_told() {
    within(|| {
        let (keys, other) = (keys(), keys());
        let units = signed(&keys, "");
        let told = |units: &[Vec<u8>]| verify(units, &keys.public);

        let verdict = verify(&units, &other.public);
        assert_eq!(verdict.statuses, ["foreign-key"; 3]);
        assert!(verdict.outcome.warnings[0].contains("another key"));
        assert_eq!(count(&verdict, "foreign-runs"), 3);

        // A frame of one's own, with right checksums of the stream.
        let mut forged = units.clone();
        let mut payload = AccessUnit::parse(&units[8]).unwrap().payload.to_vec();
        *payload.last_mut().unwrap() ^= 1;
        forged[8].clear();
        write_unit(&mut forged[8], UnitType::Frame, &payload).unwrap();
        let verdict = told(&forged);
        assert_eq!(verdict.statuses, ["verified", "tampered", "verified"]);
        assert_eq!(count(&verdict, "tampered-runs"), 1);
        assert!(
            verdict
                .outcome
                .warnings
                .iter()
                .any(|w| w.contains("run 1 was changed"))
        );

        let gap = [&units[..6], &units[12..]].concat();
        let verdict = told(&gap);
        assert_eq!(verdict.statuses, ["verified", "missing", "verified"]);
        assert_eq!(count(&verdict, "missing-runs"), 1);
        assert!(
            verdict
                .outcome
                .warnings
                .iter()
                .any(|w| w.contains("missing"))
        );

        // Cuts at the ends are no forgery, but they are told, and told apart.
        let verdict = told(&units[6..]);
        assert_eq!(verdict.statuses, ["cut-begin", "verified", "verified"]);
        assert!(
            verdict.outcome.warnings.is_empty(),
            "{:?}",
            verdict.outcome.warnings
        );
        let verdict = told(&units[..12]);
        assert_eq!(verdict.statuses, ["verified", "verified", "cut-end"]);
    });
}

#[test]
fn signatures_are_inside_the_encryption() {
    within(|| {
        let keys = keys();
        let units = signed(&keys, "");
        let file = TempFile::with("signed.nnv", &units.concat());
        let secret = "000102030405060708090a0b0c0d0e0f";
        let (outcome, stats) = play_with_stats(&format!(
            "filesrc location={} ! nnvparse ! nnvencrypt key={secret} ! nnvdecrypt key={secret} ! \
             nnvverify key={} name=v ! nnvdec ! fakesink name=out sync=false",
            file.path(),
            keys.public
        ));
        let outcome = outcome.sound();
        assert_eq!(stats.get::<u64>("verified-runs").unwrap(), 3);
        assert_eq!(outcome.shown.len(), 18);
    });
}

#[test]
fn a_missing_or_wrong_key_is_one_clear_error() {
    within(|| {
        let keys = keys();
        for (filter, expected) in [
            ("nnvsign".to_string(), "nnv keygen"),
            ("nnvsign key-file=/nonexistent".into(), "/nonexistent"),
            ("nnvverify".into(), "set key"),
            ("nnvverify key=ed25519-public:00".into(), "64 hex digits"),
            (
                format!("nnvverify key={}", keys.secret.path()),
                "ed25519-public:",
            ),
        ] {
            let outcome = play_text(&format!("fakesrc num-buffers=1 ! {filter} ! fakesink"));
            assert!(
                outcome.errors[0].contains(expected),
                "{filter}: {:?}",
                outcome.errors
            );
        }
    });
}
