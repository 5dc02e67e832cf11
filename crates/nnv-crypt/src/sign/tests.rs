// SPDX-License-Identifier: MPL-2.0

use super::*;
use crate::encrypt::tests::stream;
use crate::keys::new_signing_key;

fn sign(key: &SigningKey, units: &[Vec<u8>], interval: u32) -> Vec<Vec<u8>> {
    let mut signer = Signer::new(key.clone(), interval).unwrap();
    let time = Some(1_700_000_000_000_000_000);
    (0..units.len())
        .map(|i| {
            let last = match units.get(i + 1) {
                None => Last::OfStream { time },
                Some(next) if signer.ends_before(next).unwrap() => Last::OfGroup { time },
                Some(_) => Last::No,
            };
            signer.push(&units[i], last).unwrap()
        })
        .collect()
}

fn verify<'a>(key: &SigningKey, units: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Finding> {
    let mut verifier = Verifier::new(key.verifying_key());
    let mut findings = Vec::new();
    for unit in units {
        findings.extend(verifier.push(unit).unwrap());
    }
    findings.extend(verifier.finish());
    findings
}

fn names(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(Finding::name).collect()
}

#[test]
fn a_whole_stream_is_verified_to_its_end() {
    let (key, units) = (new_signing_key().unwrap(), stream(4, 5));
    for (interval, runs) in [(0, 4), (2, 12)] {
        let signed = sign(&key, &units, interval);
        let findings = verify(&key, &signed);
        assert_eq!(names(&findings), vec!["verified"; runs]);
        let frames: u64 = findings
            .iter()
            .map(|f| match f {
                Finding::Verified { frames, .. } => *frames,
                _ => 0,
            })
            .sum();
        assert_eq!(frames, 20);
        // Old readers see the same frames.
        for (unit, signed) in units.iter().zip(&signed) {
            let of = |data| nnv_bitstream::AccessUnit::parse(data).unwrap().frame;
            assert_eq!(of(unit), of(signed));
        }
    }
    let signed = sign(&key, &units, 0);
    assert!(matches!(
        verify(&key, &signed)[1],
        Finding::Verified {
            run: 1,
            frames: 5,
            checksums: 4,
            time: Some(_)
        }
    ));
    // Old signatures give way where there are no new ones, too.
    let often = sign(&key, &units, 2);
    assert_eq!(
        names(&verify(&key, &sign(&key, &often, 0))),
        ["verified"; 4]
    );
    // Signed anew by somebody, old signatures give way.
    let other = new_signing_key().unwrap();
    assert_eq!(
        names(&verify(&other, &sign(&other, &signed, 0))),
        vec!["verified"; 4]
    );
}

#[test]
fn cuts_and_gaps_are_told_apart() {
    let (key, units) = (new_signing_key().unwrap(), stream(4, 5));
    let s = sign(&key, &units, 0);
    let told = |units: Vec<&Vec<u8>>| names(&verify(&key, units));
    assert_eq!(
        told(s[5..].iter().collect()),
        ["cut-begin", "verified", "verified", "verified"]
    );
    assert_eq!(
        told(s[..15].iter().collect()),
        ["verified", "verified", "verified", "cut-end"]
    );
    let middle: Vec<_> = s[..5].iter().chain(&s[10..]).collect();
    assert_eq!(
        told(middle.clone()),
        ["verified", "missing", "verified", "verified"]
    );
    assert_eq!(verify(&key, middle)[1], Finding::Missing { from: 1, to: 2 });
    let swapped: Vec<_> = s[..5]
        .iter()
        .chain(&s[10..15])
        .chain(&s[5..10])
        .chain(&s[15..])
        .collect();
    assert_eq!(
        told(swapped),
        [
            "verified", "missing", "verified", "missing", "verified", "missing", "verified"
        ]
    );
    // Inside a group: a frame less, one twice, two exchanged, the signed one gone.
    let without: Vec<_> = s[..7].iter().chain(&s[8..]).collect();
    assert_eq!(
        told(without.clone()),
        ["verified", "tampered", "verified", "verified"]
    );
    assert_eq!(
        verify(&key, without)[1],
        Finding::Tampered {
            run: 1,
            signed: 5,
            found: 4
        }
    );
    let twice: Vec<_> = s[..8].iter().chain(&s[7..]).collect();
    assert_eq!(
        told(twice),
        ["verified", "tampered", "verified", "verified"]
    );
    let exchanged: Vec<_> = s[..6].iter().chain([&s[7], &s[6]]).chain(&s[8..]).collect();
    assert_eq!(
        told(exchanged),
        ["verified", "tampered", "verified", "verified"]
    );
    let unsigned: Vec<_> = s[..9].iter().chain(&s[10..]).collect();
    assert_eq!(
        told(unsigned),
        ["verified", "unsigned", "missing", "verified", "verified"]
    );
    // Two streams behind each other, whole and cut.
    let t = sign(&key, &units[..5], 0);
    assert_eq!(
        told(t.iter().chain(&t).collect()),
        ["verified", "missing", "verified"]
    );
    let u = sign(&key, &units[..5], 0);
    assert_eq!(
        told(t.iter().chain(&u).collect()),
        ["verified", "new-stream", "verified"]
    );
    assert_eq!(
        told(s[..5].iter().chain(&u).collect()),
        ["verified", "cut-end", "new-stream", "verified"]
    );
    // Who joins in the middle of a group hears nothing of it.
    assert_eq!(
        told(s[7..].iter().collect()),
        ["cut-begin", "verified", "verified"]
    );
}

#[test]
fn no_changed_bit_and_no_other_key_passes() {
    let (key, other) = (new_signing_key().unwrap(), new_signing_key().unwrap());
    let signed = sign(&key, &stream(1, 3), 0);
    assert_eq!(names(&verify(&other, &signed)), ["foreign-key"]);
    assert_eq!(names(&verify(&key, &stream(1, 3))), ["unsigned"]);
    for (i, unit) in signed.iter().enumerate() {
        let parts = Units::of(unit).unwrap();
        let mut all: Vec<_> = parts
            .sequence
            .iter()
            .map(|u| (u.kind, u.payload.to_vec()))
            .collect();
        all.extend(
            parts
                .others
                .iter()
                .map(|(u, _)| (u.kind, u.payload.to_vec())),
        );
        all.push((parts.frame.kind, parts.frame.payload.to_vec()));
        for which in 0..all.len() {
            if all[which].0 == UnitType::Filler {
                continue;
            }
            for at in 0..all[which].1.len() {
                let mut changed = all.clone();
                changed[which].1[at] ^= 1 << (at % 8);
                let mut forged = Vec::new();
                changed
                    .iter()
                    .for_each(|(k, p)| write_unit(&mut forged, *k, p).unwrap());
                let mut units = signed.clone();
                units[i] = forged;
                let mut verifier = Verifier::new(key.verifying_key());
                let pushed: Result<Vec<_>, _> = units.iter().map(|u| verifier.push(u)).collect();
                // A header beyond its limits is no access unit at all.
                let Ok(pushed) = pushed else { continue };
                assert!(
                    !pushed.concat().iter().any(Finding::is_good),
                    "{i} {which} {at}"
                );
            }
        }
    }
}
