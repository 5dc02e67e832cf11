// SPDX-License-Identifier: MPL-2.0
//! Chunks to pictures, as a page wants them.

use std::sync::{Arc, Mutex, PoisonError};

use nnv_bitstream::{BundleHash, FrameType, Level, StreamInfo};
use nnv_codec::config::DecoderConfig;
use nnv_codec::decode::{Decoded, DecodedFrame, Decoder, DecoderStats};
use nnv_codec::error::CodecError;
use nnv_format::picture::{Picture, RawFormat};
use nnv_nn::backend::Backend;
use nnv_nn::{MemoryBundle, Model, ModelSource, RuntimeOptions, hex};

use crate::sequence::{self, NeededBundle, SequenceFacts, shown_size};
use crate::{PageError, sequence_in};

/// What a page says about decoding.
#[derive(Debug, Clone, Copy)]
pub struct PageOptions {
    /// Shows the nearest picture where one is lost or damaged.
    pub conceal: bool,
    /// Frames are wanted as soon as they can be decoded.
    pub live: bool,
    /// Streams with larger pictures (luma samples) are refused.
    pub max_pixels: u64,
    /// Streams of a higher level are refused.
    pub max_level: Level,
}

impl Default for PageOptions {
    /// Full HD at most, damage concealed.
    fn default() -> Self {
        Self {
            conceal: true,
            live: false,
            max_pixels: 1920 * 1088,
            max_level: Level::UNBOUNDED,
        }
    }
}

/// Models that are loaded, and shared by all who decode on a page's thread.
type Models = Arc<Mutex<Vec<Arc<Model>>>>;

/// At most so many stay loaded: a stream needs one.
const KEPT_MODELS: usize = 2;

fn find(models: &Models, hash: &BundleHash) -> Option<Arc<Model>> {
    let models = models.lock().unwrap_or_else(PoisonError::into_inner);
    models.iter().find(|m| m.hash().starts_with(hash)).cloned()
}

/// A picture to show.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Of the chunk.
    pub id: u64,
    /// What the sequence header in force for it says.
    pub info: Arc<StreamInfo>,
    /// Not what the encoder saw.
    pub concealed: bool,
    /// Made of a key frame.
    pub key: bool,
    /// Presentation time from the stream in ns, where it has one.
    pub pts: Option<u64>,
    /// Duration from the stream in ns, where it has one.
    pub duration: Option<u64>,
    /// What happened, once per event.
    pub warning: Option<String>,
    picture: Arc<Picture>,
}

/// A chunk of which nothing is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Of the chunk.
    pub id: u64,
    /// Why, where that is worth a warning.
    pub warning: Option<String>,
}

/// What becomes of a chunk.
#[derive(Debug, Clone)]
pub enum Event {
    /// A picture.
    Shown(Shown),
    /// Nothing.
    Dropped(Dropped),
}

impl From<DecodedFrame> for Shown {
    fn from(frame: DecodedFrame) -> Self {
        Self {
            id: frame.id,
            info: frame.info,
            concealed: frame.concealed,
            key: frame.kind == FrameType::Key,
            pts: frame.pts,
            duration: frame.duration,
            warning: frame.warning,
            picture: frame.picture,
        }
    }
}

impl Shown {
    /// Bytes that [`write`](Self::write) needs.
    ///
    /// Planes Y, U, V follow each other without gaps, cropped. Samples have one byte, or two, the
    /// lower first, where the stream has 10 bits. Grey streams have neutral chroma.
    pub fn len(&self) -> usize {
        self.planes().iter().map(|(rows, bytes)| rows * bytes).sum()
    }

    /// Never: pictures have at least one sample.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Rows of each plane, and their bytes.
    pub fn planes(&self) -> [(usize, usize); 3] {
        let (width, height) = shown_size(&self.info);
        let bytes = if self.info.bit_depth > 8 { 2 } else { 1 };
        let (w, h) = (width as usize, height as usize);
        let chroma = (h.div_ceil(2), w.div_ceil(2) * bytes);
        [(h, w * bytes), chroma, chroma]
    }

    /// Writes the samples.
    ///
    /// # Errors
    /// Where `out` does not have [`len`](Self::len) bytes, or the crop is larger than the picture.
    pub fn write(&self, out: &mut [u8]) -> Result<(), PageError> {
        let internal = |what: &dyn std::fmt::Display| PageError::Encoding(what.to_string());
        if out.len() != self.len() {
            return Err(internal(&"a picture was given memory of another size"));
        }
        let header = &*self.info;
        let cropped;
        let (width, height) = shown_size(&self.info);
        let picture = match (width, height) == (header.width, header.height) {
            true => &*self.picture,
            false => {
                let (left, top) = (header.crop.left, header.crop.top);
                let part = self.picture.cropped(left, top, width, height);
                cropped = part.map_err(|e| internal(&e))?;
                &cropped
            }
        };
        let format = match header.bit_depth {
            8 => RawFormat::I420,
            _ => RawFormat::I42010Le,
        };
        let planes = self.planes();
        let (y, chroma) = out.split_at_mut(planes[0].0 * planes[0].1);
        let (u, v) = chroma.split_at_mut(planes[1].0 * planes[1].1);
        picture
            .write_raw(format, &mut [y, u, v], &planes.map(|(_, bytes)| bytes))
            .map_err(|e| internal(&e))
    }
}

/// A decoder of one stream, with the models that its page has fetched.
pub struct PageDecoder<B> {
    backend: B,
    models: Models,
    options: PageOptions,
    decoder: Decoder,
}

impl<B: std::fmt::Debug> std::fmt::Debug for PageDecoder<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageDecoder")
            .field("backend", &self.backend)
            .field("options", &self.options)
            .field("decoder", &self.decoder)
            .finish_non_exhaustive()
    }
}

impl<B: Backend + Clone + 'static> PageDecoder<B> {
    /// A decoder whose networks run on `backend`.
    pub fn new(backend: B, options: PageOptions) -> Self {
        let models = Models::default();
        Self {
            decoder: decoder(&models, options),
            backend,
            models,
            options,
        }
    }

    /// Begins anew, with other options. What was loaded stays.
    pub fn configure(&mut self, options: PageOptions) {
        self.options = options;
        self.decoder = decoder(&self.models, options);
    }

    /// The bundle that has to be [loaded](Self::load) before this chunk is decoded: of the first
    /// sequence header in it. Size and level are judged first, so that nothing is fetched in vain.
    ///
    /// # Errors
    /// [`PageError::NotSupported`] for pictures that are too large, or a level too high.
    pub fn needs(&self, chunk: &[u8]) -> Result<Option<NeededBundle>, PageError> {
        match sequence_in(chunk) {
            Some(facts) => self.lacks(&facts),
            None => Ok(None),
        }
    }

    /// As [`needs`](Self::needs), for what describes a stream.
    ///
    /// # Errors
    /// Those of [`needs`](Self::needs); [`PageError::Data`] for what is no description.
    pub fn needs_described(&self, description: &[u8]) -> Result<Option<NeededBundle>, PageError> {
        let header = sequence::description(description)?;
        self.lacks(&header.into())
    }

    fn lacks(&self, facts: &SequenceFacts) -> Result<Option<NeededBundle>, PageError> {
        let (width, height) = (facts.header.width, facts.header.height);
        if u64::from(width) * u64::from(height) > self.options.max_pixels {
            return Err(CodecError::TooLarge {
                width,
                height,
                max_pixels: self.options.max_pixels,
            }
            .into());
        }
        let (level, max_level) = (facts.header.level(), self.options.max_level);
        if level > max_level {
            return Err(CodecError::Level { level, max_level }.into());
        }
        let bundle = facts.bundle();
        Ok(find(&self.models, &bundle.hash).is_none().then_some(bundle))
    }

    /// Verifies and loads a bundle that was fetched. `label` says from where.
    ///
    /// # Errors
    /// [`PageError::NotSupported`] with what is wrong with its files, or that it is another one
    /// than the stream needs.
    pub fn load(
        &mut self,
        needed: &NeededBundle,
        label: &str,
        files: Vec<(String, Vec<u8>)>,
    ) -> Result<(), PageError> {
        let source = ModelSource::Memory(MemoryBundle::new(label.into(), files));
        let options = RuntimeOptions {
            threads: 1,
            ..RuntimeOptions::default()
        };
        let model = Model::load_on(&self.backend, &source, &options)?;
        if !model.hash().starts_with(&needed.hash) {
            return Err(PageError::NotSupported(format!(
                "the stream needs the networks \"{}\" with hash {}, {label} has {} with hash {}: \
                 put the bundle of the encoder's version there",
                needed.name,
                hex(&needed.hash),
                model.name(),
                hex(&model.hash()[..needed.hash.len()]),
            )));
        }
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.push(model);
        let surplus = models.len().saturating_sub(KEPT_MODELS);
        models.drain(..surplus);
        Ok(())
    }

    /// Takes over what describes the stream, ahead of the first chunk.
    ///
    /// # Errors
    /// Those of [`send`](Self::send), and [`PageError::Data`] for what is no description.
    pub fn describe(&mut self, description: &[u8]) -> Result<(), PageError> {
        let header = sequence::description(description)?;
        let unit = sequence::unit(&header)?;
        Ok(self.decoder.set_sequence_header(&unit)?)
    }

    /// Decodes a chunk; sooner or later one [`Event`] with its `id` comes out.
    ///
    /// # Errors
    /// The stream cannot be decoded here, or decoding failed. Damage is no error.
    pub fn send(&mut self, chunk: &[u8], id: u64) -> Result<(), PageError> {
        Ok(self.decoder.send(chunk, id)?)
    }

    /// Decodes and shows all that waits.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    pub fn finish(&mut self) -> Result<(), PageError> {
        Ok(self.decoder.finish()?)
    }

    /// What is ready, in order of presentation.
    pub fn receive(&mut self) -> Option<Event> {
        Some(match self.decoder.receive()? {
            Decoded::Frame(frame) => Event::Shown(frame.into()),
            Decoded::Dropped { id, warning, .. } => Event::Dropped(Dropped { id, warning }),
            Decoded::Skipped { id } => Event::Dropped(Dropped { id, warning: None }),
        })
    }

    /// Totals since the last [`configure`](Self::configure).
    pub fn stats(&self) -> &DecoderStats {
        self.decoder.stats()
    }

    /// The model in use.
    pub fn model(&self) -> Option<&Arc<Model>> {
        self.decoder.model()
    }
}

fn decoder(models: &Models, options: PageOptions) -> Decoder {
    let models = models.clone();
    let config = DecoderConfig {
        conceal: options.conceal,
        // A processor gains nothing from more, which takes memory and time to the first of them.
        batch_size: 1,
        live: options.live,
        threads: 1,
        max_pixels: options.max_pixels,
        max_level: options.max_level,
    };
    let provider = move |name: &str, hash: &BundleHash| {
        find(&models, hash).ok_or_else(|| CodecError::Model {
            name: name.into(),
            hash: hex(hash),
            what: "they were not loaded before its first frame".into(),
        })
    };
    Decoder::new(provider, config)
}
