// SPDX-License-Identifier: MPL-2.0
//! Writes frames of drawn material and keeps what a decoder would have of them, so that later ones
//! can refer to them.

use std::sync::Arc;

use nnv_bitstream::{
    BundleHash, ContextSource, FrameHeader, FramePayload, KeyIdentity, SequenceHeader, UnitType,
    write_unit,
};
use nnv_format::dequantise::dequantise;
use nnv_format::entropy::Encoder;
use nnv_format::grid::Grid;
use nnv_format::motion::{MotionContexts, MotionField, encode_field, predict, temporal_distances};
use nnv_format::picture::Picture;
use nnv_format::quantizer_map::{HEADROOM, Quantisation};
use nnv_format::references::{Coding, Contexts, Reference, References};
use nnv_format::still::StillContexts;
use nnv_format::tables::NetworkSet;
use nnv_nn::{Cancel, InterItem, Model};

use super::draw::{Draw, Latent};
use crate::failure::{Failure, Result};

/// What a frame is drawn like. Its header says the rest.
#[derive(Debug, Clone, Copy)]
pub struct Material {
    /// The hyper-latent.
    pub z: Latent,
    /// The latent.
    pub y: Latent,
    /// For frames with ink: value of full coverage, number of papers and of inks.
    pub ink: (u8, (u8, u8)),
}

impl Material {
    /// `z` and `y` alike.
    pub fn of(latent: Latent) -> Self {
        Self {
            z: latent,
            y: latent,
            ink: (15, (3, 2)),
        }
    }
}

/// A stream in the making.
pub struct Writer<'a> {
    model: &'a Model,
    /// Where drawn material comes from.
    pub draw: Draw,
    /// The sequence header that stands before the next key frame.
    pub sequence: SequenceHeader,
    /// Units that stand before the next frame's: type and payload.
    pub before: Vec<(UnitType, Vec<u8>)>,
    /// Frames say which key frame they refer to.
    pub key_checks: bool,
    /// Number of the group in progress.
    pub group: u8,
    coding: Option<Coding>,
    references: References<Reference>,
    key: Option<KeyIdentity>,
    out: Vec<u8>,
    cancel: Cancel,
}

impl<'a> Writer<'a> {
    /// An empty stream of pictures of 8 bits and this size.
    pub fn new(model: &'a Model, seed: u64, (width, height): (u32, u32)) -> Self {
        let mut hash = BundleHash::default();
        let len = hash.len();
        hash.copy_from_slice(&model.hash()[..len]);
        let mut sequence = SequenceHeader::new(model.name(), hash, width, height, 8);
        sequence.frame_rate.num = 25;
        sequence.checksums = true;
        Self {
            model,
            draw: Draw::new(seed),
            sequence,
            before: Vec::new(),
            key_checks: true,
            group: 254,
            coding: None,
            references: References::default(),
            key: None,
            out: Vec::new(),
            cancel: Cancel::new(),
        }
    }

    /// The stream.
    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    /// A key frame at this quantizer, with a group of its own, ready to be changed.
    pub fn key(&mut self, quantizer: u8) -> FrameHeader {
        self.group = self.group.wrapping_add(1);
        FrameHeader::key(self.group, quantizer)
    }

    /// An inter frame that is kept, ready to be changed.
    pub fn inter(&self, poc: u32, quantizer: u8, ref0: u32, ref1: Option<u32>) -> FrameHeader {
        FrameHeader::inter(self.group, poc, quantizer, ref0, ref1)
    }

    /// Writes a frame.
    pub fn put(&mut self, mut header: FrameHeader, material: Material) -> Result<()> {
        let mut unit = Vec::new();
        if header.is_key() {
            write_unit(
                &mut self.out,
                UnitType::Sequence,
                &self.sequence.to_payload()?,
            )?;
            let (width, height) = (self.sequence.width as usize, self.sequence.height as usize);
            let grid = Grid::for_picture(width, height)?;
            let tables = |set| self.model.tables(set);
            self.coding = Some(Coding::new(
                tables(NetworkSet::Key),
                tables(NetworkSet::Inter),
                grid,
                &self.sequence,
            ));
            self.references.clear();
        } else if self.key_checks && header.names_key() {
            header.key_check = self.key.map(KeyIdentity::check);
        }
        let streams = self.sequence.y_streams(header.frame_type);
        let reference = match NetworkSet::of(header.frame_type) {
            Some(set) => {
                let (payload, reference) = self.coded(&mut header, set, material)?;
                unit = payload;
                Some(reference)
            }
            None => {
                let repeat = FramePayload {
                    header: header.clone(),
                    map: &[],
                    ink: &[],
                    still: &[],
                    side: &[],
                    z: &[],
                    y: Vec::new(),
                };
                unit.extend(repeat.to_payload(streams)?);
                None
            }
        };
        if header.is_key() {
            self.key = Some(KeyIdentity::of(&unit)?);
        }
        for (kind, payload) in self.before.drain(..) {
            write_unit(&mut self.out, kind, &payload)?;
        }
        write_unit(&mut self.out, UnitType::Frame, &unit)?;
        self.references.release(&header.released);
        if let Some(reference) = reference.filter(|_| header.keep) {
            self.references.keep(header.poc, reference);
        }
        if self.references.len() > usize::from(self.sequence.gop.max_references) {
            return Err(Failure::Input(format!(
                "frame {}: {} frames are kept",
                header.poc,
                self.references.len()
            )));
        }
        Ok(())
    }

    /// The payload of a frame that has parts, and what is kept of it. Puts the checksum into the
    /// header where frames have one.
    fn coded(
        &mut self,
        header: &mut FrameHeader,
        set: NetworkSet,
        material: Material,
    ) -> Result<(Vec<u8>, Reference)> {
        let coding = self.coding.as_ref().ok_or_else(no_key)?;
        let grid = coding.grid;
        let padded = (16 * grid.w16(), 16 * grid.h16());
        let (full, colours) = material.ink;
        let ink = match header.ink {
            true => Some(self.draw.ink(padded, full, colours)?),
            false => None,
        };
        let map =
            (header.quantizer_map).then(|| self.draw.map(grid.w16(), grid.w16() * grid.h16()));

        let mut symbols = coding.fresh(set)?;
        let (mut p, mut d, mut side) = (Vec::new(), Vec::new(), Vec::new());
        let (mut still, mut still_bytes) = (None, Vec::new());
        let mut motion = None;
        if set == NetworkSet::Inter {
            let get = |poc: u32| {
                let missing = || Failure::Input(format!("frame {poc} was not kept"));
                self.references.get(poc).ok_or_else(missing)
            };
            let ref0 = get(header.ref0.unwrap_or(0))?;
            let ref1 = header.ref1.map(get).transpose()?.unwrap_or(ref0);
            let mut contexts = MotionContexts::default();
            let mut still_contexts = StillContexts::default();
            let from = match header.contexts {
                ContextSource::Tables => None,
                ContextSource::Ref0 => Some(ref0),
                ContextSource::Ref1 => Some(ref1),
            };
            if let Some(from) = from
                .map(|r| r.contexts.as_ref().ok_or_else(no_key))
                .transpose()?
            {
                (symbols, contexts) = (from.symbols.clone(), from.motion.clone());
                still_contexts = from.still.clone();
            }
            let mut field = MotionField::new(&ref0.picture);
            field.set_distances(temporal_distances(header.poc, header.ref0, header.ref1));
            self.draw.field(&mut field, ref0.field.as_deref());
            let mut coder = Encoder::new();
            encode_field(&mut coder, &mut contexts, &field, ref0.field.as_deref());
            side = coder.finish();
            (p, d) = (vec![0; grid.picture_len()], vec![0; grid.picture_len()]);
            predict(&field, &ref0.picture, &ref1.picture, 1)?.pack(&mut p, &mut d)?;
            if let Some((ink, _)) = &ink {
                ink.ground(&mut p, &mut d);
            }
            if header.still {
                let before = ref0.still.as_deref();
                let map = self.draw.still(grid, before);
                still_bytes = map.to_bytes(&mut still_contexts, before);
                still = Some(map);
            }
            motion = Some((contexts, still_contexts, field));
        }

        let z = self.draw.z(symbols.z_shape().len(), material.z);
        let z_bytes = symbols.encode_z(&z)?;
        let mut batch = match set {
            NetworkSet::Key => self.model.key_batch(grid, &[header.quantizer])?,
            NetworkSet::Inter => self.model.inter_batch(
                grid,
                &[InterItem {
                    quantizer: header.quantizer,
                    p: &p,
                    d: &d,
                }],
            )?,
        };
        if map.is_some() {
            batch.raise_scales(0, HEADROOM);
        }
        let prior = batch.prior(&[&z], &self.cancel)?;
        let tables = self.model.tables(set);
        let steps = Quantisation::new(tables, header.quantizer, map.as_ref());
        let with_map = steps.scales(prior.scale_idx(0));
        let mut scales = with_map.unwrap_or_else(|| prior.scale_idx(0).to_vec());
        if let Some(still) = &still {
            still.mask_scales(&mut scales);
        }
        let y = self.draw.y(&scales, tables.symbols().order(), material.y);
        let y_bytes = symbols.encode_y(&scales, &y)?;
        let r = dequantise(&y, &steps);
        let synthesised = batch.synthesise(&prior, &[&r], &self.cancel)?;
        let mut picture = Picture::new(self.sequence.width, self.sequence.height)?;
        let mut packed = synthesised.get(0).to_vec();
        if let Some(still) = &still {
            still.keep_prediction(&p, &mut packed);
        }
        picture.unpack(&packed)?;
        if let Some((ink, _)) = &ink {
            ink.apply(&mut picture);
        }

        header.checksum = (self.sequence.checksums).then(|| picture.checksum());
        let map_bytes = map.map(|map| map.to_bytes()).unwrap_or_default();
        let payload = FramePayload {
            header: header.clone(),
            map: &map_bytes,
            ink: ink.as_ref().map_or(&[], |(_, bytes)| bytes),
            still: &still_bytes,
            side: &side,
            z: &z_bytes,
            y: y_bytes.iter().map(|b| &b[..]).collect(),
        };
        let payload = payload.to_payload(self.sequence.y_streams(header.frame_type))?;
        let (contexts, field) = motion
            .map(|(motion, still, field)| {
                let contexts = Contexts {
                    symbols,
                    motion,
                    still,
                };
                (Arc::new(contexts), Arc::new(field))
            })
            .unzip();
        let reference = Reference {
            picture: Arc::new(picture),
            level: header.level,
            contexts,
            field,
            still: still.map(Arc::new),
        };
        Ok((payload, reference))
    }
}

fn no_key() -> Failure {
    Failure::Input("a frame comes before its key frame, or inherits from one".into())
}
