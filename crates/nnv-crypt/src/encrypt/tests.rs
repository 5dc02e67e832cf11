// SPDX-License-Identifier: MPL-2.0

use nnv_bitstream::limits::{MAX_FRAME_METADATA, MAX_STREAM_METADATA};
use nnv_bitstream::{AccessUnit, AccessUnitScan, AccessUnitScanner, FramePayload, SequenceHeader};

use super::*;

/// Access units of a few groups; the third unit of each takes metadata along.
pub(crate) fn stream(groups: u8, frames: u32) -> Vec<Vec<u8>> {
    let sequence = SequenceHeader::new("b", [7; 8], 64, 48, 8)
        .to_payload()
        .unwrap();
    let mut units = Vec::new();
    for gop in 0..groups {
        for poc in 0..frames {
            let mut header = match poc {
                0 => FrameHeader::key(gop, 9),
                _ => FrameHeader::inter(gop, poc, 9, poc - 1, None),
            };
            header.checksum = (poc != 1).then_some(u32::from(gop) << 8 | poc);
            header.pts = Some(i64::from(poc) * 40_000_000);
            let z = [gop, poc as u8, 3, 4, 5];
            let frame = FramePayload {
                header,
                map: b"",
                ink: b"",
                still: b"",
                side: b"",
                z: &z,
                y: vec![&b"this is what the picture holds"[..]],
            };
            let mut out = Vec::new();
            if poc == 0 {
                write_unit(&mut out, UnitType::Sequence, &sequence).unwrap();
            }
            if poc == 2 {
                write_unit(&mut out, UnitType::Filler, &[0; 9]).unwrap();
                write_unit(&mut out, UnitType::Unknown(77), b"52.52 north, 13.40 east").unwrap();
            }
            write_unit(&mut out, UnitType::Frame, &frame.to_payload(1).unwrap()).unwrap();
            units.push(out);
        }
    }
    units
}

fn secret(byte: u8) -> Secret {
    Secret::new(&[byte; 32]).unwrap()
}

fn encrypt(units: &[Vec<u8>], rotation: u32) -> Vec<Vec<u8>> {
    let mut encryptor = Encryptor::new(7, secret(1), rotation).unwrap();
    units
        .iter()
        .map(|unit| encryptor.encrypt(unit).unwrap())
        .collect()
}

fn known(number: u64) -> Option<Secret> {
    (number == 7).then(|| secret(1))
}

#[test]
fn what_was_encrypted_comes_back_byte_for_byte() {
    let units = stream(5, 4);
    for rotation in [0, 1, 2] {
        let sealed = encrypt(&units, rotation);
        let mut decryptor = Decryptor::new(64);
        let (mut keyings, mut added) = (Vec::new(), 0);
        for (unit, sealed) in units.iter().zip(&sealed) {
            let (plain, cipher) = (AccessUnit::parse(unit), AccessUnit::parse(sealed).unwrap());
            let plain = plain.unwrap();
            // Headers stay readable, but for the picture's checksum.
            assert!(cipher.encrypted && !plain.encrypted && cipher.frame.checksum.is_none());
            let readable = FrameHeader {
                checksum: None,
                ..plain.frame
            };
            assert_eq!((cipher.frame, cipher.sequence), (readable, plain.sequence));
            for text in [&b"what the picture"[..], b"north"] {
                assert!(!sealed.windows(text.len()).any(|w| w == text));
            }
            assert_eq!(decryptor.decrypt(sealed, known), Ok(unit.clone()));
            let keying = Units::of(sealed).unwrap().others;
            keyings.extend(
                keying
                    .iter()
                    .filter(|k| k.0.kind == KEYING_UNIT)
                    .map(|k| k.1.to_vec()),
            );
            added += sealed.len() - unit.len();
        }
        // Each key frame says how it is encrypted; so many different ways are there.
        assert_eq!(keyings.len(), 5);
        keyings.dedup();
        assert_eq!(
            keyings.len(),
            match rotation {
                0 => 1,
                1 => 5,
                _ => 3,
            }
        );
        assert!(added <= units.len() * 24 + 5 * 40, "{added} bytes");
    }
}

#[test]
fn the_longest_metadata_fits_beside_any_frame() {
    let units = stream(1, 2);
    for (i, unit) in units.iter().enumerate() {
        let (mut with, mut rest) = (Vec::new(), &unit[..]);
        if i == 0 {
            let sequence = match nnv_bitstream::UnitScanner::new().scan(unit, true) {
                nnv_bitstream::Scan::Unit(unit) => unit.len,
                other => panic!("{other:?}"),
            };
            with.extend(&unit[..sequence]);
            rest = &unit[sequence..];
            let stream = vec![200; MAX_STREAM_METADATA];
            write_unit(&mut with, UnitType::StreamMetadata, &stream).unwrap();
        }
        let frame = vec![201; MAX_FRAME_METADATA];
        write_unit(&mut with, UnitType::FrameMetadata, &frame).unwrap();
        with.extend(rest);
        let mut encryptor = Encryptor::new(7, secret(1), 0).unwrap();
        let mut sealed = Vec::new();
        for unit in units[..i].iter().chain([&with]) {
            sealed.push(encryptor.encrypt(unit).unwrap());
        }
        // A parser takes it, and whoever has the key gets all of it back.
        let (data, mut scanner) = (sealed.concat(), AccessUnitScanner::default());
        let mut at = 0;
        for sealed in &sealed {
            let AccessUnitScan::Unit(unit) = scanner.scan(at as u64, &data[at..], true) else {
                panic!("byte {at}");
            };
            assert!(unit.encrypted);
            assert_eq!(unit.len, sealed.len());
            at += unit.len;
        }
        let mut decryptor = Decryptor::new(0);
        let mut opened = Vec::new();
        for sealed in &sealed {
            opened.push(decryptor.decrypt(sealed, known).unwrap());
        }
        assert!(opened[i] == with);
    }
}

#[test]
fn no_changed_byte_passes() {
    let units = stream(1, 3);
    let sealed = encrypt(&units, 0);
    for (i, unit) in sealed.iter().enumerate() {
        let parts = Units::of(unit).unwrap();
        let mut all = vec![];
        all.extend(parts.sequence.iter().map(|u| (u.kind, u.payload.to_vec())));
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
                let mut decryptor = Decryptor::new(64);
                sealed[..i].iter().for_each(|u| {
                    decryptor.decrypt(u, known).unwrap();
                });
                assert!(
                    decryptor.decrypt(&forged, |_| Some(secret(1))).is_err(),
                    "{i} {at}"
                );
                // And what is genuine still passes.
                assert_eq!(decryptor.decrypt(unit, known).as_ref(), Ok(&units[i]));
            }
        }
    }
}

#[test]
fn refusals_say_why() {
    let units = stream(2, 4);
    let sealed = encrypt(&units, 1);
    let mut d = Decryptor::new(64);
    assert_eq!(d.decrypt(&units[0], known), Err(Refusal::Plain));
    assert_eq!(d.decrypt(&sealed[1], known), Err(Refusal::NoKeyFrame));
    assert_eq!(d.decrypt(&sealed[0], |_| None), Err(Refusal::NoKey(7)));
    assert_eq!(
        d.decrypt(&sealed[0], |_| Some(secret(2))),
        Err(Refusal::Tampered)
    );
    for unit in &sealed[..4] {
        d.decrypt(unit, known).unwrap();
    }
    assert_eq!(d.decrypt(&sealed[2], known), Err(Refusal::Replayed));
    assert_eq!(d.decrypt(&sealed[0], known), Err(Refusal::Replayed));
    for unit in &sealed[4..] {
        d.decrypt(unit, known).unwrap();
    }
    // The group before was keyed otherwise: neither it nor its frames come again.
    assert_eq!(d.decrypt(&sealed[0], known), Err(Refusal::Replayed));
    assert_eq!(d.decrypt(&sealed[1], known), Err(Refusal::Replayed));
    d.restart(64);
    for unit in &sealed {
        d.decrypt(unit, known).unwrap();
    }
    // Backwards, group by group.
    d.restart(0);
    for group in sealed.rchunks(4) {
        for unit in group {
            d.decrypt(unit, known).unwrap();
        }
    }
    let mut all = Decryptor::new(0);
    for unit in sealed.iter().chain(&sealed) {
        all.decrypt(unit, known).unwrap();
    }
    let mut e = Encryptor::new(7, secret(1), 0).unwrap();
    assert_eq!(e.encrypt(&sealed[0]), Err(CryptError::Encrypted));
    assert_eq!(e.encrypt(&units[1]), Err(CryptError::NoKeyFrame));
}

#[test]
fn another_key_takes_over_at_a_key_frame_and_two_senders_never_share_one() {
    let units = stream(2, 3);
    let mut e = Encryptor::new(7, secret(1), 0).unwrap();
    let mut sealed: Vec<_> = units[..2].iter().map(|u| e.encrypt(u).unwrap()).collect();
    e.set_key(8, secret(2));
    sealed.extend(units[2..].iter().map(|u| e.encrypt(u).unwrap()));
    let mut asked = Vec::new();
    let mut d = Decryptor::new(64);
    for (unit, sealed) in units.iter().zip(&sealed) {
        let opened = d.decrypt(sealed, |number| {
            asked.push(number);
            Some(secret(number as u8 - 6))
        });
        assert_eq!(opened.as_ref(), Ok(unit));
    }
    assert_eq!(asked, [7, 8]);
    // The same secret and frames, another sender: nothing of the cipher repeats.
    let (a, b) = (encrypt(&units, 0), encrypt(&units, 0));
    for (a, b) in a.iter().zip(&b) {
        let (a, b) = (Units::of(a).unwrap(), Units::of(b).unwrap());
        assert_ne!(
            a.frame.payload[a.header_len + 2..],
            b.frame.payload[b.header_len + 2..]
        );
    }
}
