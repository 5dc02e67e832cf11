// SPDX-License-Identifier: MPL-2.0
//! Thousands of damaged streams against scanner, parsers and entropy decoder: errors are fine,
//! panics are not, and what lies outside the damage must survive it.

use std::sync::Arc;

use nnv_bitstream::frame::{ContextSource, FrameHeader, FramePayload};
use nnv_bitstream::unit::{UnitType, write_unit};
use nnv_bitstream::{
    AccessUnit, AccessUnitScan, Scan, SequenceHeader, UnitScanner, scan_access_unit,
};
use nnv_format::entropy::{Decoder, SymbolContexts, SymbolTables};
use nnv_format::ink::InkLayer;
use nnv_format::quantizer_map::QuantizerMap;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize
    }

    fn below(&mut self, n: usize) -> usize {
        self.next() % n
    }
}

const CHANNELS: usize = 16;
const STREAMS: u8 = 2;

fn tables() -> Arc<SymbolTables> {
    let y: Vec<u16> = (0..64 * 15)
        .map(|i| (600 + (i / 15) * 900 + (i % 15) * 50) as u16)
        .collect();
    let order: Vec<u16> = (0..CHANNELS as u16).collect();
    Arc::new(SymbolTables::new(&y, &[3000; 4 * 15], &order).unwrap())
}

fn contexts() -> SymbolContexts {
    SymbolContexts::new(tables(), 6, 10, STREAMS.into()).unwrap()
}

fn scales() -> Vec<u8> {
    (0..CHANNELS * 60).map(|i| (i * 7 % 23) as u8).collect()
}

/// Gives the first symbol of each place the sign that is not coded where magnitudes hide it; all
/// channels share one.
fn fit_signs(scales: &[u8], symbols: &mut [i16]) {
    let places = scales.len() / CHANNELS;
    for p in 0..places {
        let coded: Vec<usize> = (0..CHANNELS)
            .map(|c| c * places + p)
            .filter(|&at| scales[at] > 0 && symbols[at] != 0)
            .collect();
        let sum: i16 = coded.iter().map(|&at| symbols[at].abs()).sum();
        if let Some(&first) = coded.first()
            && sum >= 2
        {
            symbols[first] = symbols[first].abs() * if sum % 2 == 1 { -1 } else { 1 };
        }
    }
}

/// Access units of a stream with a key frame and a header every eighth frame. Each unit's time
/// names it.
fn stream(frames: u32) -> Vec<Vec<u8>> {
    let mut rng = Rng(0xabcdef);
    let (mut sequence, scales) = (SequenceHeader::new("test", [9; 8], 160, 96, 8), scales());
    (sequence.key_streams, sequence.inter_streams) = (STREAMS, STREAMS);
    let mut state = contexts();
    (0..frames)
        .map(|i| {
            let poc = i % 8;
            let mut out = Vec::new();
            let mut header = if poc == 0 {
                write_unit(
                    &mut out,
                    UnitType::Sequence,
                    &sequence.to_payload().unwrap(),
                )
                .unwrap();
                state = contexts();
                FrameHeader::key((i / 8) as u8, 30)
            } else {
                let h = FrameHeader::inter((i / 8) as u8, poc, 30, poc - 1, None);
                FrameHeader {
                    contexts: ContextSource::Ref0,
                    ..h
                }
            };
            header.pts = Some(i.into());
            header.checksum = Some(i);
            let z: Vec<i8> = (0..state.z_shape().len())
                .map(|_| rng.below(5) as i8 - 2)
                .collect();
            let mut symbols: Vec<i16> = scales
                .iter()
                .map(|&k| {
                    if k > 0 && rng.below(9) < 2 {
                        rng.below(7) as i16 - 3
                    } else {
                        0
                    }
                })
                .collect();
            fit_signs(&scales, &mut symbols);
            let z = state.encode_z(&z).unwrap();
            let y = state.encode_y(&scales, &symbols).unwrap();
            let side: &[u8] = if poc == 0 { &[] } else { b"motion" };
            let y = y.iter().map(|s| &s[..]).collect();
            header.quantizer_map = i % 3 == 0;
            let map: &[u8] = if header.quantizer_map { b"map" } else { &[] };
            header.ink = i % 4 == 1;
            let ink: &[u8] = if header.ink { b"ink" } else { &[] };
            header.still = poc > 0 && i % 5 == 2;
            let still: &[u8] = if header.still { b"still" } else { &[] };
            let payload = FramePayload {
                header,
                map,
                ink,
                still,
                side,
                z: &z,
                y,
            }
            .to_payload(STREAMS)
            .unwrap();
            write_unit(&mut out, UnitType::Frame, &payload).unwrap();
            out
        })
        .collect()
}

/// Reads everything there is to read in `data`; returns the times of the frames found, in order.
///
/// `decode`: the entropy decoder reads the frames too.
fn read(data: &[u8], scanner: &UnitScanner, decode: bool) -> Vec<i64> {
    let (mut pos, mut times, mut steps) = (0, Vec::new(), 0);
    loop {
        steps += 1;
        assert!(steps <= 2 * data.len() + 2, "no progress");
        match scan_access_unit(scanner, &data[pos..], true) {
            AccessUnitScan::Unit(u) => {
                let whole = &data[pos..pos + u.len];
                assert_eq!(AccessUnit::parse(whole).as_ref(), Ok(&*u));
                if let Ok(f) = FramePayload::parse(u.payload, STREAMS)
                    && decode
                {
                    let _ = QuantizerMap::decode(&mut Decoder::new(f.map), 10, 6);
                    let _ = InkLayer::decode(f.ink, 160, 96);
                    let mut state = contexts();
                    let _ = state.decode_z(f.z);
                    let _ = state.decode_y(&f.y, &scales());
                }
                times.extend(u.frame.pts);
                pos += u.len;
            }
            AccessUnitScan::Skip(n)
            | AccessUnitScan::Repeated(n)
            | AccessUnitScan::Unsupported(n, _) => {
                assert!(n > 0 && pos + n <= data.len());
                pos += n;
            }
            AccessUnitScan::NeedMore(_) => panic!("there is no more"),
            AccessUnitScan::End => return times,
        }
    }
}

#[test]
fn an_intact_stream_is_read_whole() {
    let units = stream(24);
    assert_eq!(
        read(&units.concat(), &UnitScanner::new(), true),
        (0..24).collect::<Vec<i64>>()
    );
}

#[test]
fn damage_stays_where_it_is() {
    let units = stream(24);
    let scanner = UnitScanner::new();
    let mut rng = Rng(2024);
    let mut lost = 0;
    for round in 0..3000 {
        let victim = rng.below(units.len());
        let mut bad = units[victim].clone();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(bad.len().max(1));
            match rng.below(6) {
                0 if !bad.is_empty() => bad[at] ^= 1 << rng.below(8),
                1 => bad.truncate(at),
                2 if !bad.is_empty() => drop(bad.remove(at)),
                3 => bad.insert(at, rng.next() as u8),
                4 => bad[at..].iter_mut().for_each(|b| *b = 0),
                _ => bad
                    .splice(at..at, units[rng.below(3)][..7].to_vec())
                    .for_each(drop),
            }
        }
        let data = [
            &units[..victim].concat()[..],
            &bad,
            &units[victim + 1..].concat(),
        ]
        .concat();
        let times = read(&data, &scanner, round % 50 == 0);
        let others: Vec<i64> = (0..24).filter(|&t| t != victim as i64).collect();
        let found: Vec<i64> = times
            .iter()
            .copied()
            .filter(|&t| t != victim as i64)
            .collect();
        assert_eq!(found, others, "round {round}: unit {victim}");
        lost += usize::from(!times.contains(&(victim as i64)));
    }
    assert!(lost > 1500, "the damage did nothing: {lost}");
}

#[test]
fn garbage_is_read_without_panic() {
    let scanner = UnitScanner::with_max_payload(1 << 16);
    let units = stream(8);
    let mut rng = Rng(77);
    for round in 0..3000 {
        let mut data: Vec<u8> = Vec::new();
        for _ in 0..rng.below(6) {
            let unit = &units[rng.below(units.len())];
            let from = rng.below(unit.len());
            data.extend(&unit[from..from + rng.below(unit.len() - from)]);
            data.extend((0..rng.below(40)).map(|_| rng.next() as u8));
            data.extend(b"\x8eNV");
        }
        read(&data, &scanner, round % 8 == 0);
    }
}

#[test]
fn sound_units_with_wrong_contents_are_read_without_panic() {
    // The checksums are right, the contents are not: an attacker's stream.
    let scanner = UnitScanner::new();
    let units = stream(16);
    let mut rng = Rng(31);
    for round in 0..4000 {
        let source = &units[rng.below(units.len())];
        let mut data = Vec::new();
        let mut pos = 0;
        while let Scan::Unit(u) = scanner.scan(&source[pos..], true) {
            let mut payload = u.payload.to_vec();
            for _ in 0..rng.below(4) {
                let reach = 1 + rng.below(120);
                let at = rng.below(payload.len().min(reach));
                payload[at] = rng.next() as u8;
            }
            if rng.below(4) == 0 {
                let len = rng.below(payload.len());
                payload.truncate(len.max(1));
            }
            write_unit(&mut data, u.kind, &payload).unwrap();
            pos += u.len;
        }
        read(&data, &scanner, round % 8 == 0);
    }
}
