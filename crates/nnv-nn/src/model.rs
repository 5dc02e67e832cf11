// SPDX-License-Identifier: MPL-2.0
//! A loaded bundle and its typed, batched runs.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nnv_bitstream::limits::QUANTIZERS;
use nnv_format::entropy::tables::SCALES;
use nnv_format::grid::{Grid, Part};
use nnv_format::picture::TENSOR_CHANNELS;
use nnv_format::tables::{LATENT_CHANNELS, NetworkSet, Tables};
use smallvec::SmallVec;

use super::backend::{Backend, Data, Element, Output, Scalar, Tensor};
use super::bundle::{Bundle, ModelSource, hex};
use super::cancel::Cancel;
use super::error::{NnError, Result};
use super::graph::{Contract, Graph, Interface, Place, elements};
use super::registry::Registry;
use super::{Provider, RuntimeOptions};

/// Most frames in one run.
pub const MAX_BATCH: usize = 32;

/// One inter frame of a batch. Both pictures are packed, `[96, 2·h16, 2·w16]`, in 10-bit units.
#[derive(Debug, Clone, Copy)]
pub struct InterItem<'a> {
    /// 0..64.
    pub quantizer: u8,
    /// The prediction, centred (sample value − 512).
    pub p: &'a [i16],
    /// Difference of the two predictions where a block is predicted from both references, 0
    /// elsewhere.
    pub d: &'a [i16],
}

const F32: Option<Element> = Some(Element::F32);
const U8: Option<Element> = Some(Element::U8);
const I8: Option<Element> = Some(Element::I8);
const I16: Option<Element> = Some(Element::I16);

/// Everything a graph of each stage may take. Key frames have no `p` and `d`.
const PRIOR_TAKES: &Interface = &[
    ("z_up", I8),
    ("qvec", I8),
    ("qoff", F32),
    ("mask", U8),
    ("p", I16),
    ("d", I16),
];
const SYNTH_TAKES: &Interface = &[
    ("r", I16),
    ("feat", None),
    ("qvec", I8),
    ("qoff", F32),
    ("mask", U8),
    ("p", I16),
    ("d", I16),
];
const ENC_TAKES: &Interface = &[
    ("x", I16),
    ("step", F32),
    ("qvec", I8),
    ("qoff", F32),
    ("mask", U8),
    ("p", I16),
    ("d", I16),
];
const MEAN_TAKES: &Interface = &[("feat", None), ("r", I16), ("mask", U8)];
const PRIOR_GIVES: &Interface = &[("scale_idx", U8), ("feat", None)];
const SYNTH_GIVES: &Interface = &[("pic", I16)];
const ENC_GIVES: &Interface = &[("y", F32), ("z", I8)];
const MEAN_GIVES: &Interface = &[("delta", I16)];

fn takes(interface: &'static Interface, kind: NetworkSet) -> &'static Interface {
    match kind {
        NetworkSet::Inter => interface,
        NetworkSet::Key => interface
            .strip_suffix(&[("p", I16), ("d", I16)])
            .unwrap_or(interface),
    }
}

/// The normative networks of one frame kind.
#[derive(Debug)]
struct Decoding {
    prior: Graph,
    synth: Graph,
}

/// A bundle whose normative networks are loaded and have passed their known-answer tests.
///
/// Encoder networks are loaded with the first [`Batch::analyse`] or by
/// [`prepare_encoder`](Self::prepare_encoder), so that decoders never pay for them.
pub struct Model {
    backend: Box<dyn Backend>,
    bundle: Bundle,
    options: RuntimeOptions,
    provider: Provider,
    warnings: Vec<String>,
    key: Decoding,
    inter: Decoding,
    encoders: [OnceLock<Graph>; 3],
    /// Held while encoder networks are made.
    loading: Mutex<()>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Tables and known answers would fill screens.
        f.debug_struct("Model")
            .field("name", &self.bundle.name)
            .field("hash", &hex(&self.bundle.hash))
            .field("options", &self.options)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// Models in use, so that elements of a process share them.
static REGISTRY: Registry<(&str, [u8; 32], RuntimeOptions), Model> = Registry::new();

impl Model {
    /// Loads a bundle and its normative networks, or returns the one already in use with the same
    /// bundle and options.
    ///
    /// Without an explicit provider those compiled in are tried, best first;
    /// [`warnings`](Self::warnings) tells which were refused and why.
    ///
    /// # Errors
    /// [`NnError::Runtime`] without ONNX Runtime; [`NnError::UnknownModel`] and [`NnError::Bundle`]
    /// for what is wrong with the bundle; [`NnError::Provider`] and [`NnError::KnownAnswer`] when
    /// no allowed provider runs it exactly.
    #[cfg(feature = "onnxruntime")]
    pub fn load(source: &ModelSource, options: &RuntimeOptions) -> Result<Arc<Self>> {
        Self::load_on(&super::onnxruntime::OnnxRuntime::get()?, source, options)
    }

    /// As `load` does with ONNX Runtime, on any back end.
    ///
    /// # Errors
    /// [`NnError::UnknownModel`] and [`NnError::Bundle`] for what is wrong with the bundle;
    /// [`NnError::Provider`] and [`NnError::KnownAnswer`] when no allowed provider runs it exactly.
    pub fn load_on(
        backend: &(impl Backend + Clone + 'static),
        source: &ModelSource,
        options: &RuntimeOptions,
    ) -> Result<Arc<Self>> {
        let bundle = Bundle::open(source)?;
        let options = RuntimeOptions {
            threads: options.resolved_threads(),
            ..options.clone()
        };
        let key = (backend.name(), bundle.identity, options.clone());
        REGISTRY.get_or_load(key, || {
            Self::build(Box::new(backend.clone()), bundle, options)
        })
    }

    fn build(backend: Box<dyn Backend>, bundle: Bundle, options: RuntimeOptions) -> Result<Self> {
        let candidates = match &options.provider {
            Some(provider) => std::slice::from_ref(provider),
            None => backend.providers(),
        };
        let (mut warnings, mut rest) = (Vec::new(), candidates.iter().copied());
        let (provider, key, inter) = loop {
            let provider = rest.next().unwrap_or(Provider::Cpu);
            let place = Place {
                backend: &*backend,
                provider,
                options: &options,
            };
            match decoding(&bundle, place) {
                Ok((key, inter)) => break (provider, key, inter),
                // Another provider may do; it cannot mend the bundle.
                Err(
                    e @ (NnError::Provider { .. }
                    | NnError::KnownAnswer { .. }
                    | NnError::Run { .. }),
                ) if rest.len() > 0 => warnings.push(e.to_string()),
                Err(e) => return Err(e),
            }
        };
        Ok(Self {
            backend,
            bundle,
            options,
            provider,
            warnings,
            key,
            inter,
            encoders: Default::default(),
            loading: Mutex::new(()),
        })
    }

    /// Name from the bundle.
    pub fn name(&self) -> &str {
        &self.bundle.name
    }

    /// Hash over everything normative in the bundle; a stream carries it.
    pub fn hash(&self) -> [u8; 32] {
        self.bundle.hash
    }

    /// What runs the networks.
    pub fn active_provider(&self) -> Provider {
        self.provider
    }

    /// Providers that were tried and refused, with reasons.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Threads that a run may use.
    pub fn threads(&self) -> usize {
        self.options.threads
    }

    /// Integer tables of a frame kind.
    pub fn tables(&self, kind: NetworkSet) -> &Tables {
        self.bundle.tables(kind)
    }

    /// Channels of the hyper-latent.
    pub fn hyper_channels(&self) -> usize {
        self.bundle.hyper_channels
    }

    /// Elements of a hyper-latent: `[hyper_channels, hz, wz]`.
    pub fn z_len(&self, grid: Grid) -> usize {
        self.bundle.hyper_channels * grid.hz() * grid.wz()
    }

    /// Loads the encoder networks now instead of with the first frame.
    ///
    /// # Errors
    /// [`NnError::Bundle`] or [`NnError::Provider`].
    pub fn prepare_encoder(&self) -> Result<()> {
        self.encoder(NetworkSet::Key)?;
        self.means()?;
        self.encoder(NetworkSet::Inter)?;
        Ok(())
    }

    fn encoder(&self, kind: NetworkSet) -> Result<&Graph> {
        let (cell, name) = match kind {
            NetworkSet::Key => (&self.encoders[0], "key_enc"),
            NetworkSet::Inter => (&self.encoders[1], "inter_enc"),
        };
        self.on_demand(cell, name, takes(ENC_TAKES, kind), ENC_GIVES)
    }

    fn means(&self) -> Result<&Graph> {
        self.on_demand(&self.encoders[2], "key_mean", MEAN_TAKES, MEAN_GIVES)
    }

    fn on_demand<'m>(
        &'m self,
        cell: &'m OnceLock<Graph>,
        name: &'static str,
        takes: &Interface,
        gives: &Interface,
    ) -> Result<&'m Graph> {
        if let Some(graph) = cell.get() {
            return Ok(graph);
        }
        let _guard = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(graph) = cell.get() {
            return Ok(graph);
        }
        let place = Place {
            backend: &*self.backend,
            provider: self.provider,
            options: &self.options,
        };
        let graph = build_graph(&self.bundle, name, place, takes, gives)?;
        Ok(cell.get_or_init(|| graph))
    }

    /// A batch of key frames, one per quantizer.
    ///
    /// # Errors
    /// [`NnError::Input`] for no or too many frames or a quantizer above 63.
    pub fn key_batch(&self, grid: Grid, quantizers: &[u8]) -> Result<Batch<'_>> {
        self.batch(
            NetworkSet::Key,
            grid,
            quantizers.iter().copied().collect(),
            Cow::Borrowed(&[]),
            Cow::Borrowed(&[]),
        )
    }

    /// A batch of inter frames. A single frame is not copied; several are copied together, once,
    /// here.
    ///
    /// # Errors
    /// [`NnError::Input`] as for key frames, and for pictures of another size than the grid's.
    pub fn inter_batch<'a>(&'a self, grid: Grid, items: &[InterItem<'a>]) -> Result<Batch<'a>> {
        let quantizers = items.iter().map(|i| i.quantizer).collect();
        let len = grid.picture_len();
        check_count(items.len())?;
        let p = join("p", items.iter().map(|i| i.p), len)?;
        let d = join("d", items.iter().map(|i| i.d), len)?;
        self.batch(NetworkSet::Inter, grid, quantizers, p, d)
    }

    fn batch<'a>(
        &'a self,
        kind: NetworkSet,
        grid: Grid,
        quantizers: SmallVec<[u8; 8]>,
        p: Cow<'a, [i16]>,
        d: Cow<'a, [i16]>,
    ) -> Result<Batch<'a>> {
        check_count(quantizers.len())?;
        if let Some(q) = quantizers.iter().find(|&&q| usize::from(q) >= QUANTIZERS) {
            return Err(NnError::Input(format!(
                "quantizer {q} is not within 0..{QUANTIZERS}"
            )));
        }
        let tables = self.tables(kind);
        let qvec = quantizers
            .iter()
            .flat_map(|&q| tables.qvec(q))
            .copied()
            .collect();
        let qoff = quantizers
            .iter()
            .map(|&q| f32::from(tables.qoff(q)) / 2.0)
            .collect();
        let mask = (0..grid.h16())
            .flat_map(|y| (0..grid.w16()).map(move |x| u8::from((x + y) % 2 == 0)))
            .collect();
        Ok(Batch {
            model: self,
            kind,
            grid,
            quantizers,
            qvec,
            qoff,
            raised: SmallVec::new(),
            mask,
            p,
            d,
            part: None,
        })
    }

    /// A part of one inter frame, alone; `item` is of the whole, of the size of `grid`.
    ///
    /// What [`Batch::prior`] and [`Batch::synthesise`] give of a part is what they give of the
    /// whole from [`reach`](Self::reach) blocks on inwards, and at the borders that it shares with
    /// the picture.
    ///
    /// # Errors
    /// [`NnError::Input`] for pictures of another size than the grid's, a part that is not within
    /// it and a quantizer above 63.
    pub fn inter_part(&self, grid: Grid, part: Part, item: &InterItem<'_>) -> Result<Batch<'_>> {
        if !part.is_within(grid) {
            return Err(NnError::Input(format!(
                "a part to column and row {:?} of {} × {}",
                part.last(),
                grid.w16(),
                grid.h16()
            )));
        }
        let cut = |what, tensor: &[i16]| {
            join(what, [tensor].into_iter(), grid.picture_len())?;
            let cut = part.cut(tensor, Part::whole(grid), PICTURE_SCALE);
            Ok::<_, NnError>(Cow::Owned(cut))
        };
        let (p, d) = (cut("p", item.p)?, cut("d", item.d)?);
        let quantizers = std::iter::once(item.quantizer).collect();
        let mut batch = self.batch(NetworkSet::Inter, part.grid, quantizers, p, d)?;
        batch.part = Some((grid, part));
        // The checkerboard is the picture's.
        let odd = (part.x + part.y) % 2;
        batch.mask.iter_mut().for_each(|m| *m ^= odd as u8);
        Ok(batch)
    }

    /// How far results at a block depend on others, in blocks; of inter frames.
    pub fn reach(&self) -> Reach {
        Reach {
            prior: self.inter.prior.structure().reach,
            synthesis: self.inter.synth.structure().reach,
        }
    }

    /// Multiplications with additions that decoding takes for each luma sample of the costlier kind
    /// of frame, rounded up; sides count as rounded up to multiples of 16.
    pub fn decoding_macs(&self) -> u32 {
        let of = |kind: &Decoding| {
            let (prior, synth) = (kind.prior.structure(), kind.synth.structure());
            prior.macs.saturating_add(synth.macs).div_ceil(256)
        };
        // No more than a sequence header can say.
        of(&self.key).max(of(&self.inter)).min(i32::MAX as u64) as u32
    }
}

/// Positions of a packed picture along a side of a block.
const PICTURE_SCALE: usize = 2;

/// How far results at a block of 16×16 luma samples depend on others, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Of scale indices and features.
    pub prior: usize,
    /// Of pictures, where the features are known.
    pub synthesis: usize,
}

fn check_count(n: usize) -> Result<()> {
    match n {
        1..=MAX_BATCH => Ok(()),
        _ => Err(NnError::Input(format!(
            "a batch of {n} frames; 1 to {MAX_BATCH} are possible"
        ))),
    }
}

/// Tensors of a batch behind each other; one tensor alone is borrowed.
fn join<'a, T: Copy>(
    what: &str,
    parts: impl ExactSizeIterator<Item = &'a [T]>,
    len: usize,
) -> Result<Cow<'a, [T]>> {
    let count = parts.len();
    let mut joined = Cow::Borrowed(&[] as &[T]);
    for (i, part) in parts.enumerate() {
        if part.len() != len {
            return Err(NnError::Input(format!(
                "{what} of frame {i} has {} elements, expected {len}",
                part.len()
            )));
        }
        if count == 1 {
            return Ok(Cow::Borrowed(part));
        }
        let joined = joined.to_mut();
        joined.reserve_exact(len * (count - i));
        joined.extend_from_slice(part);
    }
    Ok(joined)
}

fn decoding(bundle: &Bundle, place: Place<'_>) -> Result<(Decoding, Decoding)> {
    let graph = |name, kind, takes_: &'static Interface, gives: &Interface| -> Result<Graph> {
        let graph = build_graph(bundle, name, place, takes(takes_, kind), gives)?;
        let mut answers = bundle
            .known_answers
            .iter()
            .filter(|a| a.graph == name)
            .peekable();
        // Without a complete answer a provider could be wrong unnoticed.
        let complete = |outputs: &[(String, u32)]| {
            gives
                .iter()
                .all(|(n, _)| outputs.iter().any(|(o, _)| o == n))
        };
        if !answers.peek().is_some_and(|a| complete(&a.outputs)) {
            return Err(NnError::Bundle {
                bundle: bundle.name.clone(),
                what: format!("it has no known answer for all outputs of {}", graph.name()),
            });
        }
        for answer in answers {
            graph.verify(answer, place.provider)?;
        }
        Ok(graph)
    };
    let kind = |kind, prior, synth| -> Result<Decoding> {
        Ok(Decoding {
            prior: graph(prior, kind, PRIOR_TAKES, PRIOR_GIVES)?,
            synth: graph(synth, kind, SYNTH_TAKES, SYNTH_GIVES)?,
        })
    };
    let key = || kind(NetworkSet::Key, "key_prior", "key_synth");
    let inter = || kind(NetworkSet::Inter, "inter_prior", "inter_synth");
    if place.options.threads == 1 {
        return Ok((key()?, inter()?));
    }
    // Viewers wait for this: half as long where there are two processors.
    let (key, inter) = std::thread::scope(|scope| {
        let inter = scope.spawn(inter);
        (key(), inter.join())
    });
    let inter = inter.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    Ok((key?, inter?))
}

fn build_graph(
    bundle: &Bundle,
    name: &'static str,
    place: Place<'_>,
    takes: &Interface,
    gives: &Interface,
) -> Result<Graph> {
    let onnx = bundle
        .read(&format!("{name}.onnx"))
        .map_err(|what| NnError::Bundle {
            bundle: bundle.name.clone(),
            what,
        })?;
    let channels = |tensor: &str| match tensor {
        "z_up" | "z" => Some(bundle.hyper_channels),
        "qvec" => Some(bundle.qvec_channels),
        "r" | "y" | "scale_idx" | "step" => Some(LATENT_CHANNELS),
        "p" | "d" | "x" | "pic" => Some(TENSOR_CHANNELS),
        "qoff" | "mask" => Some(1),
        // `feat` is the model's own affair.
        _ => None,
    };
    let contract = Contract {
        may_take: takes,
        must_give: gives,
        channels: &channels,
    };
    Graph::build(name, &bundle.name, &onnx, place, &contract)
}

/// Frames of one kind and size that go through the networks together; they may have different
/// quantizers.
///
/// All inputs that several networks share are prepared here, once.
#[derive(Debug)]
pub struct Batch<'a> {
    model: &'a Model,
    kind: NetworkSet,
    grid: Grid,
    quantizers: SmallVec<[u8; 8]>,
    qvec: Vec<i8>,
    qoff: Vec<f32>,
    /// What the prior's offsets are raised by, by frame; empty where none is.
    raised: SmallVec<[f32; 8]>,
    mask: Vec<u8>,
    p: Cow<'a, [i16]>,
    d: Cow<'a, [i16]>,
    /// Where the batch is a part of a picture: the size of the whole, and the part.
    part: Option<(Grid, Part)>,
}

impl<'a> Batch<'a> {
    /// Number of frames.
    #[allow(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.quantizers.len()
    }

    /// Raises the scale indices that [`prior`](Self::prior) gives of frame `i` by this many halves,
    /// before they are cut off at 0.
    ///
    /// # Panics
    /// When the batch has no frame `i`.
    pub fn raise_scales(&mut self, i: usize, halves: i16) {
        self.raised.resize(self.qoff.len(), 0.0);
        self.raised[i] = f32::from(halves) / 2.0;
    }

    /// Kind of all frames.
    pub fn kind(&self) -> NetworkSet {
        self.kind
    }

    /// Size of all frames.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    fn y_shape(&self) -> [usize; 4] {
        [
            self.len(),
            LATENT_CHANNELS,
            self.grid.h16(),
            self.grid.w16(),
        ]
    }

    fn picture_shape(&self) -> [usize; 4] {
        [
            self.len(),
            TENSOR_CHANNELS,
            2 * self.grid.h16(),
            2 * self.grid.w16(),
        ]
    }

    fn shared_input<'v>(&'v self, name: &str) -> Option<Tensor<'v>> {
        let n = self.len();
        match name {
            "qvec" => Some(Tensor::new(
                [n, self.model.bundle.qvec_channels, 1, 1],
                &self.qvec,
            )),
            "qoff" => Some(Tensor::new([n, 1, 1, 1], &self.qoff)),
            "mask" => Some(Tensor::new(
                [1, 1, self.grid.h16(), self.grid.w16()],
                &self.mask,
            )),
            "p" => Some(Tensor::new(self.picture_shape(), &self.p)),
            "d" => Some(Tensor::new(self.picture_shape(), &self.d)),
            _ => None,
        }
    }

    fn check_frames<T>(&self, what: &str, frames: &[&[T]]) -> Result<()> {
        if frames.len() != self.len() {
            return Err(NnError::Input(format!(
                "{} times {what} for a batch of {}",
                frames.len(),
                self.len()
            )));
        }
        Ok(())
    }

    fn decoding(&self) -> &'a Decoding {
        match self.kind {
            NetworkSet::Key => &self.model.key,
            NetworkSet::Inter => &self.model.inter,
        }
    }

    /// Encoder: packed pictures `x` (`[96, 2·h16, 2·w16]`, centred 10 bit) to latents.
    ///
    /// Of a key frame's latents only the means known before any symbol are taken off: see
    /// [`refine`](Self::refine).
    ///
    /// # Errors
    /// [`NnError::Input`], [`NnError::Cancelled`], [`NnError::Run`]; at the first use also those of
    /// [`Model::prepare_encoder`].
    pub fn analyse(&self, x: &[&[i16]], cancel: &Cancel) -> Result<Analysis> {
        self.check_frames("x", x)?;
        let x = join("x", x.iter().copied(), self.grid.picture_len())?;
        let tables = self.model.tables(self.kind);
        let step: Vec<f32> = self
            .quantizers
            .iter()
            .flat_map(|&q| tables.step(q))
            .map(|&s| f32::from(s) / 64.0)
            .collect();
        let graph = self.model.encoder(self.kind)?;
        let [y, z] = graph.run(
            |name| match name {
                "x" => Some(Tensor::new(self.picture_shape(), &x)),
                "step" => Some(Tensor::new([self.len(), LATENT_CHANNELS, 1, 1], &step)),
                _ => self.shared_input(name),
            },
            ["y", "z"],
            cancel,
        )?;
        let z_shape = [
            self.len(),
            self.model.hyper_channels(),
            self.grid.hz(),
            self.grid.wz(),
        ];
        let analysis = Analysis {
            y,
            z,
            y_shape: self.y_shape(),
            z_shape,
        };
        elements::<f32>(&*analysis.y, analysis.y_shape)
            .map_err(|what| bad_output(graph, "y", &what))?;
        elements::<i8>(&*analysis.z, analysis.z_shape)
            .map_err(|what| bad_output(graph, "z", &what))?;
        Ok(analysis)
    }

    /// Hyper-latents (`[hyper_channels, hz, wz]`, symbols within ±127; of the whole picture, where
    /// the batch is a part) to scale indices.
    ///
    /// # Errors
    /// [`NnError::Input`], [`NnError::Cancelled`], [`NnError::Run`].
    pub fn prior(&self, z: &[&[i8]], cancel: &Cancel) -> Result<Prior> {
        self.check_frames("z", z)?;
        let (grid, channels) = (self.grid, self.model.hyper_channels());
        let (whole, part) = self.part.unwrap_or((grid, Part::whole(grid)));
        let mut z_up = Vec::with_capacity(self.len() * channels * grid.h16() * grid.w16());
        for (i, frame) in z.iter().enumerate() {
            if frame.len() != self.model.z_len(whole) {
                let expected = self.model.z_len(whole);
                return Err(NnError::Input(format!(
                    "z of frame {i} has {} elements, expected {expected}",
                    frame.len()
                )));
            }
            upsample(frame, whole, part, &mut z_up);
        }
        let graph = &self.decoding().prior;
        let mut offsets = Cow::Borrowed(&self.qoff[..]);
        if !self.raised.is_empty() {
            let raised = offsets.to_mut().iter_mut().zip(&self.raised);
            raised.for_each(|(offset, by)| *offset += by);
        }
        let [scale_idx, feat] = graph.run(
            |name| match name {
                "z_up" => Some(Tensor::new(
                    [self.len(), channels, grid.h16(), grid.w16()],
                    &z_up,
                )),
                "qoff" => Some(Tensor::new([self.len(), 1, 1, 1], &offsets)),
                _ => self.shared_input(name),
            },
            ["scale_idx", "feat"],
            cancel,
        )?;
        let prior = Prior {
            scale_idx,
            feat,
            shape: self.y_shape(),
            kind: self.kind,
        };
        let indices = elements::<u8>(&*prior.scale_idx, prior.shape)
            .map_err(|what| bad_output(graph, "scale_idx", &what))?;
        // Consumers index tables with them.
        if indices
            .iter()
            .copied()
            .max()
            .is_some_and(|m| usize::from(m) >= SCALES)
        {
            return Err(bad_output(graph, "scale_idx", "an index is above 63"));
        }
        Ok(prior)
    }

    /// Encoder, key frames: how much the means of the other positions change once the residuals of
    /// the anchors (positions with an even sum of row and column) are known.
    ///
    /// The residuals `r` must be those that will be coded: a decoder takes its means from them. At
    /// other positions than anchors they do not matter.
    ///
    /// # Errors
    /// [`NnError::Input`], also for inter frames, which have no means; [`NnError::Cancelled`],
    /// [`NnError::Run`]; at the first use also those of [`Model::prepare_encoder`].
    pub fn refine(&self, prior: &Prior, r: &[&[i16]], cancel: &Cancel) -> Result<Refinement> {
        self.check_frames("r", r)?;
        if self.kind != NetworkSet::Key {
            return Err(NnError::Input("inter frames have no means".into()));
        }
        if prior.shape != self.y_shape() || prior.kind != self.kind {
            return Err(NnError::Input("the prior belongs to another batch".into()));
        }
        let r = join("r", r.iter().copied(), self.grid.y_len())?;
        let graph = self.model.means()?;
        let [delta] = graph.run(
            |name| match name {
                "r" => Some(Tensor::new(self.y_shape(), &r)),
                "feat" => prior.feat.tensor().ok(),
                _ => self.shared_input(name),
            },
            ["delta"],
            cancel,
        )?;
        let refinement = Refinement {
            delta,
            shape: self.y_shape(),
        };
        elements::<i16>(&*refinement.delta, refinement.shape)
            .map_err(|what| bad_output(graph, "delta", &what))?;
        Ok(refinement)
    }

    /// Dequantised residuals (`[384, h16, w16]`, within ±2047) to pictures, with the result of
    /// [`prior`](Self::prior) of the same batch.
    ///
    /// # Errors
    /// [`NnError::Input`], [`NnError::Cancelled`], [`NnError::Run`].
    pub fn synthesise(&self, prior: &Prior, r: &[&[i16]], cancel: &Cancel) -> Result<Pictures> {
        self.check_frames("r", r)?;
        if prior.shape != self.y_shape() || prior.kind != self.kind {
            return Err(NnError::Input("the prior belongs to another batch".into()));
        }
        let r = join("r", r.iter().copied(), self.grid.y_len())?;
        let graph = &self.decoding().synth;
        let [pic] = graph.run(
            |name| match name {
                "r" => Some(Tensor::new(self.y_shape(), &r)),
                "feat" => prior.feat.tensor().ok(),
                _ => self.shared_input(name),
            },
            ["pic"],
            cancel,
        )?;
        let pictures = Pictures {
            pic,
            shape: self.picture_shape(),
        };
        elements::<i16>(&*pictures.pic, pictures.shape)
            .map_err(|what| bad_output(graph, "pic", &what))?;
        Ok(pictures)
    }
}

fn bad_output(graph: &Graph, output: &str, what: &str) -> NnError {
    graph.failed(format!("output {output}: {what}"))
}

/// Repeats each value 4×4 times, cropped to a part of the grid.
fn upsample(z: &[i8], whole: Grid, part: Part, out: &mut Vec<i8>) {
    let (last_x, last_y) = part.last();
    for plane in z.chunks_exact(whole.hz() * whole.wz()) {
        for y in part.y..=last_y {
            let row = &plane[y / 4 * whole.wz()..][..whole.wz()];
            out.extend((part.x..=last_x).map(|x| row[x / 4]));
        }
    }
}

/// Frame `i` of a batched tensor whose shape was checked when it was made.
fn frame<T: Scalar>(value: &dyn Output, shape: [usize; 4], i: usize) -> &[T] {
    let len = shape[1..].iter().product::<usize>();
    let data = elements::<T>(value, shape).expect("type and shape were checked after the run");
    &data[i * len..(i + 1) * len]
}

/// Scale indices of a batch, and features that only [`Batch::synthesise`] reads.
#[derive(Debug)]
pub struct Prior {
    scale_idx: Box<dyn Output>,
    feat: Box<dyn Output>,
    shape: [usize; 4],
    kind: NetworkSet,
}

impl Prior {
    /// Scale indices of frame `i`, `[384, h16, w16]`, each below 64; 0 means that the symbol is
    /// zero and not coded.
    ///
    /// # Panics
    /// When the batch has no frame `i`.
    pub fn scale_idx(&self, i: usize) -> &[u8] {
        frame(&*self.scale_idx, self.shape, i)
    }

    /// That of a part of one frame's, `from`, as one of a smaller part.
    ///
    /// # Errors
    /// [`NnError::Input`] where this is of several frames, of another part than `from`, or `part`
    /// is not within that.
    pub fn part(&self, from: Part, part: Part) -> Result<Self> {
        let [n, c, h, w] = self.shape;
        let inside = part.x >= from.x && part.y >= from.y && {
            let (a, b) = (part.last(), from.last());
            a.0 <= b.0 && a.1 <= b.1
        };
        if n != 1 || (h, w) != (from.grid.h16(), from.grid.w16()) || !inside {
            return Err(NnError::Input("no part of this prior".into()));
        }
        let size = [part.grid.h16(), part.grid.w16()];
        let wrong = |what| NnError::Input(format!("the prior's features: {what}"));
        let feat = self.feat.tensor().map_err(wrong)?;
        let feat_shape = [1, feat.shape[1], size[0], size[1]];
        let feat: Box<dyn Output> = match feat.data {
            Data::U8(v) => Box::new(Owned::new(feat_shape, part.cut(v, from, 1))),
            Data::I8(v) => Box::new(Owned::new(feat_shape, part.cut(v, from, 1))),
            other => return Err(wrong(format!("they are of {}", other.element()))),
        };
        let shape = [1, c, size[0], size[1]];
        let scale_idx = part.cut(self.scale_idx(0), from, 1);
        Ok(Self {
            scale_idx: Box::new(Owned::new(shape, scale_idx)),
            feat,
            shape,
            kind: self.kind,
        })
    }
}

/// A tensor in memory of our own.
#[derive(Debug)]
struct Owned<T> {
    shape: [usize; 4],
    elements: Vec<T>,
}

impl<T> Owned<T> {
    fn new(shape: [usize; 4], elements: Vec<T>) -> Self {
        Self { shape, elements }
    }
}

impl<T: Scalar + std::fmt::Debug> Output for Owned<T> {
    fn tensor(&self) -> std::result::Result<Tensor<'_>, String> {
        Ok(Tensor::new(self.shape, &self.elements))
    }
}

/// Decoded pictures of a batch.
#[derive(Debug)]
pub struct Pictures {
    pic: Box<dyn Output>,
    shape: [usize; 4],
}

impl Pictures {
    /// Frame `i`, packed, `[96, 2·h16, 2·w16]`, sample value − 512. A sound bundle keeps them
    /// within -512..=511; who unpacks pictures of foreign bundles clips.
    ///
    /// # Panics
    /// When the batch has no frame `i`.
    pub fn get(&self, i: usize) -> &[i16] {
        frame(&*self.pic, self.shape, i)
    }
}

/// Changes of means, for [`Batch::refine`].
#[derive(Debug)]
pub struct Refinement {
    delta: Box<dyn Output>,
    shape: [usize; 4],
}

impl Refinement {
    /// What to take off the latents of frame `i` besides, `[384, h16, w16]`, in units of
    /// dequantised residuals; 0 at anchors.
    ///
    /// # Panics
    /// When the batch has no frame `i`.
    pub fn delta(&self, i: usize) -> &[i16] {
        frame(&*self.delta, self.shape, i)
    }
}

/// Latents that an encoder found.
#[derive(Debug)]
pub struct Analysis {
    y: Box<dyn Output>,
    z: Box<dyn Output>,
    y_shape: [usize; 4],
    z_shape: [usize; 4],
}

impl Analysis {
    /// (latent − first mean) / step of frame `i`, `[384, h16, w16]`, not rounded.
    ///
    /// # Panics
    /// When the batch has no frame `i`.
    pub fn y(&self, i: usize) -> &[f32] {
        frame(&*self.y, self.y_shape, i)
    }

    /// Hyper-latent symbols of frame `i`, `[hyper_channels, hz, wz]`. Symbols are meant to stay
    /// within ±127; clip what foreign bundles give.
    ///
    /// # Panics
    /// When the batch has no frame `i`.
    pub fn z(&self, i: usize) -> &[i8] {
        frame(&*self.z, self.z_shape, i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upsampling_repeats_and_crops() {
        let grid = Grid::new(5, 6).unwrap();
        let mut out = Vec::new();
        upsample(&[1, 2, 3, 4], grid, Part::whole(grid), &mut out);
        #[rustfmt::skip]
        let expected = [
            1, 1, 1, 1, 2, 2,
            1, 1, 1, 1, 2, 2,
            1, 1, 1, 1, 2, 2,
            1, 1, 1, 1, 2, 2,
            3, 3, 3, 3, 4, 4,
        ];
        assert_eq!(out, expected);
        let part = Part::between((3, 2), (5, 4)).unwrap();
        let mut out = Vec::new();
        upsample(&[1, 2, 3, 4], grid, part, &mut out);
        assert_eq!(out, part.cut(&expected, Part::whole(grid), 1));
    }

    #[test]
    fn one_part_is_borrowed_and_sizes_are_checked() {
        let (a, b) = ([1i16, 2], [3i16, 4]);
        assert!(matches!(
            join("p", [&a[..]].into_iter(), 2).unwrap(),
            Cow::Borrowed(_)
        ));
        assert_eq!(
            *join("p", [&a[..], &b[..]].into_iter(), 2).unwrap(),
            [1, 2, 3, 4]
        );
        assert!(matches!(
            join("p", [&a[..], &b[..1]].into_iter(), 2),
            Err(NnError::Input(_))
        ));
    }
}
