// SPDX-License-Identifier: MPL-2.0
//! Bundles and networks of super-resolution: one network per scale, from luma to luma.
//!
//! `bundle.toml` of such a bundle:
//!
//! ```toml
//! [bundle]
//! format = 1
//! kind = "sr"
//! name = "balanced"
//! description = "one line"
//!
//! [[network]]               # one per scale
//! scale = 2                 # 1 to 4
//! file = "x2.onnx"
//! sha256 = "…"
//! radius = 9                # receptive field, in input pixels to each side
//! fold = 1                  # optional: sides of the input and the radius are multiples of it
//! parameters = 98000
//! macs_per_pixel = 97000    # per input pixel
//! precision = "float32"     # or "int8": quantised inside, float32 outside
//! channels = 32             # optional: the widest layer, from which memory is estimated
//! ```
//!
//! A graph takes `x`, float32 `[N, 1, H, W]`, and gives `y`, float32 `[N, 1, scale·H, scale·W]`:
//! luma in limited range as 8-bit code values / 255. H and W are multiples of `fold`, for networks
//! that begin with space-to-depth. Within `radius` of the border of `x`, `y` means nothing: whoever
//! feeds it pads.
//!
//! A graph may also take `quantizer`, float32 `[N, 2, 1, 1]`: of each picture how sure it is (1:
//! read from the stream, 0.5: thought likely, 0: unknown), and the mean quantizer that it was coded
//! with, in H.264's steps.

use std::sync::Arc;

use serde::Deserialize;

use super::backend::{Backend, Element, Output, Tensor};
use super::bundle::{Files, Kind, embedded_of, manifest_error, parse_hex};
use super::cancel::Cancel;
use super::error::{NnError, Result};
use super::graph::{Contract, Graph, Place, elements};
use super::registry::Registry;
use super::{ModelSource, Provider, RuntimeOptions};

/// Largest scale of a network.
pub const MAX_SCALE: usize = 4;
/// Largest receptive field, so that tiles stay larger than their borders.
const MAX_RADIUS: usize = 128;
const MAX_FOLD: usize = 8;
const MAX_CHANNELS: usize = 4096;
/// Most samples of one run: what ONNX Runtime indexes with 32 bits.
const MAX_SAMPLES: usize = 1 << 27;

/// The input that tells of quantizers.
const QUANTIZER: &str = "quantizer";

/// Names of the graphs in messages, by scale.
const GRAPHS: [&str; MAX_SCALE] = ["x1", "x2", "x3", "x4"];

#[derive(Deserialize)]
struct Manifest {
    bundle: Head,
    #[serde(default)]
    network: Vec<Entry>,
}

#[derive(Deserialize)]
struct Head {
    name: String,
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
struct Entry {
    scale: usize,
    file: String,
    sha256: String,
    radius: usize,
    #[serde(default = "unfolded")]
    fold: usize,
    parameters: u64,
    macs_per_pixel: u64,
    precision: String,
    channels: Option<usize>,
}

fn unfolded() -> usize {
    1
}

/// Number format inside a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Floating point of 32 bits.
    Float32,
    /// Quantised to 8 bits, with float32 inputs and outputs.
    Int8,
}

/// What a bundle says about one of its networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrFacts {
    /// Output samples per input sample, along each axis.
    pub scale: usize,
    /// How far to each side an output sample sees, in input samples.
    pub radius: usize,
    /// Sides of what it takes are multiples of this, and so is the radius.
    pub fold: usize,
    /// Number of weights.
    pub parameters: u64,
    /// Multiplications per input sample.
    pub macs_per_pixel: u64,
    /// Number format inside.
    pub precision: Precision,
    /// Channels of the widest layer, where the bundle tells.
    pub channels: Option<usize>,
}

impl SrFacts {
    /// Bytes that a run takes per padded input sample, estimated.
    ///
    /// Three feature maps of the widest layer (input, output and a skip connection), and the
    /// picture before and after. Where the bundle does not tell the width, all weights are taken to
    /// be in one dense 3×3 layer, which over-estimates. Maps of a folded picture have fewer
    /// positions.
    pub fn bytes_per_sample(&self) -> usize {
        let widest = self.channels.unwrap_or_else(|| {
            let weights = usize::try_from(self.parameters).unwrap_or(usize::MAX);
            (weights / 9).isqrt().clamp(16, MAX_CHANNELS)
        });
        let maps = (3 * widest).div_ceil(self.fold * self.fold);
        size_of::<f32>() * (maps + 1 + 2 * self.scale * self.scale)
    }
}

/// A bundle whose manifest was read. Networks are verified and loaded one by one.
#[derive(Debug)]
pub struct SrBundle {
    label: String,
    name: String,
    description: String,
    identity: [u8; 32],
    files: Files,
    networks: Vec<Listed>,
}

#[derive(Debug)]
struct Listed {
    facts: SrFacts,
    file: String,
    digest: [u8; 32],
}

impl SrBundle {
    /// Opens a bundle of kind `sr`.
    ///
    /// # Errors
    /// [`NnError::UnknownModel`], and [`NnError::Bundle`] for a bundle that is incomplete or of
    /// another kind.
    pub fn open(source: &ModelSource) -> Result<Self> {
        let files = Files::find(source, Kind::Sr)?;
        let label = source.label().into_owned();
        Self::from_files(files, label.clone()).map_err(|what| NnError::Bundle {
            bundle: label,
            what,
        })
    }

    fn from_files(files: Files, label: String) -> Result<Self, String> {
        let (text, identity) = files.manifest(Kind::Sr)?;
        let manifest: Manifest = toml::from_str(&text).map_err(|e| manifest_error(&e))?;
        let mut networks: Vec<Listed> = Vec::new();
        for entry in manifest.network {
            let listed = entry.check()?;
            if networks.iter().any(|n| n.facts.scale == listed.facts.scale) {
                return Err(format!(
                    "bundle.toml lists two networks for scale {}",
                    listed.facts.scale
                ));
            }
            networks.push(listed);
        }
        if networks.is_empty() {
            return Err("bundle.toml lists no network".into());
        }
        networks.sort_by_key(|n| n.facts.scale);
        Ok(Self {
            label,
            name: manifest.bundle.name,
            description: manifest.bundle.description,
            identity,
            files,
            networks,
        })
    }

    /// Name from the bundle.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the bundle says about itself, in a line.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Scales that it has networks for, ascending.
    pub fn scales(&self) -> Vec<usize> {
        self.networks.iter().map(|n| n.facts.scale).collect()
    }

    /// Facts of the network for a scale.
    pub fn facts(&self, scale: usize) -> Option<&SrFacts> {
        self.listed(scale).map(|n| &n.facts)
    }

    fn listed(&self, scale: usize) -> Option<&Listed> {
        self.networks.iter().find(|n| n.facts.scale == scale)
    }

    /// Loads the network for a scale, or returns the one already in use with the same bundle and
    /// options.
    ///
    /// # Errors
    /// [`NnError::Runtime`] without ONNX Runtime; [`NnError::Bundle`] where the bundle has no
    /// network for the scale, or a damaged one; [`NnError::Provider`] or [`NnError::Run`] when no
    /// allowed provider runs it.
    #[cfg(feature = "onnxruntime")]
    pub fn network(&self, scale: usize, options: &RuntimeOptions) -> Result<Arc<SrNetwork>> {
        self.network_on(&super::onnxruntime::OnnxRuntime::get()?, scale, options)
    }

    /// As `network` does with ONNX Runtime, on any back end.
    ///
    /// # Errors
    /// [`NnError::Bundle`] where the bundle has no network for the scale, or a damaged one;
    /// [`NnError::Provider`] or [`NnError::Run`] when no allowed provider runs it.
    pub fn network_on(
        &self,
        backend: &dyn Backend,
        scale: usize,
        options: &RuntimeOptions,
    ) -> Result<Arc<SrNetwork>> {
        let wrong = |what| NnError::Bundle {
            bundle: self.label.clone(),
            what,
        };
        let listed = self.listed(scale).ok_or_else(|| {
            let has: Vec<_> = self.scales().iter().map(ToString::to_string).collect();
            wrong(format!(
                "it has no network for scale {scale}, only for scale {}",
                has.join(", ")
            ))
        })?;
        let options = RuntimeOptions {
            threads: options.resolved_threads(),
            ..options.clone()
        };
        let key = (backend.name(), self.identity, scale, options.clone());
        REGISTRY.get_or_load(key, || {
            let onnx = self
                .files
                .verified(&listed.file, &listed.digest)
                .map_err(wrong)?;
            SrNetwork::build(backend, &self.label, listed, &onnx, &options)
        })
    }
}

impl Entry {
    fn check(self) -> Result<Listed, String> {
        let scale = self.scale;
        if !(1..=MAX_SCALE).contains(&scale) {
            return Err(format!(
                "a network has scale {scale}, it must be within 1..={MAX_SCALE}"
            ));
        }
        let wrong = |what: String| format!("network of scale {scale}: {what}");
        // The name is used below the bundle's folder: it must not lead out of there.
        let plain = self
            .file
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !plain || self.file.starts_with('.') || self.file.is_empty() {
            return Err(wrong(format!(
                "file is {:?}, it must be a plain file name",
                self.file.chars().take(64).collect::<String>()
            )));
        }
        let digest = parse_hex(&self.sha256)
            .ok_or_else(|| wrong("sha256 is not 64 hexadecimal digits".into()))?;
        if self.radius > MAX_RADIUS {
            return Err(wrong(format!(
                "radius is {}, it must be within 0..={MAX_RADIUS}",
                self.radius
            )));
        }
        if !(1..=MAX_FOLD).contains(&self.fold) || !self.radius.is_multiple_of(self.fold) {
            return Err(wrong(format!(
                "fold is {}, it must be within 1..={MAX_FOLD} and divide the radius",
                self.fold
            )));
        }
        if self
            .channels
            .is_some_and(|c| !(1..=MAX_CHANNELS).contains(&c))
        {
            return Err(wrong(format!("channels must be within 1..={MAX_CHANNELS}")));
        }
        let precision = match &*self.precision {
            "float32" => Precision::Float32,
            "int8" => Precision::Int8,
            other => {
                return Err(wrong(format!(
                    "precision is {:?}, it must be float32 or int8",
                    other.chars().take(16).collect::<String>()
                )));
            }
        };
        Ok(Listed {
            facts: SrFacts {
                scale,
                radius: self.radius,
                fold: self.fold,
                parameters: self.parameters,
                macs_per_pixel: self.macs_per_pixel,
                precision,
                channels: self.channels,
            },
            file: self.file,
            digest,
        })
    }
}

/// A super-resolution bundle that is built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedSr {
    /// Name to give to [`ModelSource::Embedded`].
    pub name: &'static str,
    /// Scales that it has networks for, ascending.
    pub scales: Vec<usize>,
}

/// The super-resolution bundles built into this plugin, in order of their names. Unreadable ones
/// are left out here and explained when opened by name.
pub fn embedded_sr() -> Vec<EmbeddedSr> {
    embedded_of(Kind::Sr)
        .filter_map(|bundle| {
            let opened = SrBundle::open(&ModelSource::Embedded(bundle.folder.into())).ok()?;
            Some(EmbeddedSr {
                name: bundle.folder,
                scales: opened.scales(),
            })
        })
        .collect()
}

const F32: Option<Element> = Some(Element::F32);

/// Networks in use, so that elements of a process share them.
static REGISTRY: Registry<(&str, [u8; 32], usize, RuntimeOptions), SrNetwork> = Registry::new();

/// A network that is loaded and has given a picture of the right size.
#[derive(Debug)]
pub struct SrNetwork {
    graph: Graph,
    bundle: String,
    facts: SrFacts,
    provider: Provider,
    warnings: Vec<String>,
}

impl SrNetwork {
    fn build(
        backend: &dyn Backend,
        bundle: &str,
        listed: &Listed,
        onnx: &[u8],
        options: &RuntimeOptions,
    ) -> Result<Self> {
        let mut warnings = Vec::new();
        let candidates = match &options.provider {
            Some(provider) => std::slice::from_ref(provider),
            None => backend.providers(),
        };
        for &provider in candidates {
            let place = Place {
                backend,
                provider,
                options,
            };
            match Self::build_on(bundle, listed, onnx, place) {
                Ok(network) => {
                    return Ok(Self {
                        warnings,
                        ..network
                    });
                }
                // Another provider cannot mend the bundle.
                Err(e @ NnError::Bundle { .. }) => return Err(e),
                Err(e) if Some(&provider) == candidates.last() => return Err(e),
                Err(e) => warnings.push(e.to_string()),
            }
        }
        unreachable!("the last candidate returns")
    }

    fn build_on(bundle: &str, listed: &Listed, onnx: &[u8], place: Place<'_>) -> Result<Self> {
        let contract = Contract {
            may_take: &[("x", F32), (QUANTIZER, F32)],
            must_give: &[("y", F32)],
            channels: &|name| Some(if name == QUANTIZER { 2 } else { 1 }),
        };
        let name = GRAPHS[listed.facts.scale - 1];
        let graph = Graph::build(name, bundle, onnx, place, &contract)?;
        let network = Self {
            graph,
            bundle: bundle.into(),
            facts: listed.facts.clone(),
            provider: place.provider,
            warnings: Vec::new(),
        };
        // Shapes are open in the graph: only a run shows that it takes any, and what it makes of
        // them.
        let fold = network.facts.fold;
        for (n, h, w) in [(1, fold, fold), (2, 3 * fold, 5 * fold)] {
            let told = vec![0.0; if network.is_rated() { 2 * n * h * w } else { 0 }];
            let input = vec![0.5; n * h * w];
            network
                .graph
                .run_in_time(|cancel| network.run(&input, [n, h, w], &told, cancel).map(drop))
                .map_err(|e| match e {
                    NnError::Run { what, .. } => NnError::Bundle {
                        bundle: bundle.into(),
                        what: format!("the graph {name} fails on {n} pictures of {w}x{h}: {what}"),
                    },
                    e => e,
                })?;
        }
        Ok(network)
    }

    /// Name or folder of the bundle.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// What the bundle says about it.
    pub fn facts(&self) -> &SrFacts {
        &self.facts
    }

    /// What runs it.
    pub fn active_provider(&self) -> Provider {
        self.provider
    }

    /// Providers that were tried and refused, with reasons.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether it makes use of what is known of a picture's quantizer.
    pub fn is_rated(&self) -> bool {
        self.graph.takes(QUANTIZER)
    }

    /// Runs the network on `[n, h, w]` samples, which are luma in limited range as 8-bit code
    /// values / 255. What is `told` of their quantizers is `[n, 2]` values of pictures, `[n, 2, h,
    /// w]` of their samples, or nothing: how sure it is (0, where nobody knows; 0.5; 1), and the
    /// quantizer.
    ///
    /// # Errors
    /// [`NnError::Input`] for another number of samples or quantizers, or none;
    /// [`NnError::Cancelled`]; [`NnError::Run`].
    pub fn run(
        &self,
        x: &[f32],
        [n, h, w]: [usize; 3],
        told: &[f32],
        cancel: &Cancel,
    ) -> Result<Upscaled> {
        let samples = [n, h, w].iter().try_fold(1usize, |a, &b| a.checked_mul(b));
        if samples != Some(x.len()) || !(1..=MAX_SAMPLES).contains(&x.len()) {
            return Err(NnError::Input(format!(
                "{} samples for {n} pictures of {w}x{h}",
                x.len()
            )));
        }
        let nothing = vec![0.0; 2 * n];
        let (told, told_shape) = match told.len() {
            0 => (&nothing[..], [n, 2, 1, 1]),
            len if len == 2 * n => (told, [n, 2, 1, 1]),
            len if len == 2 * x.len() => (told, [n, 2, h, w]),
            len => {
                return Err(NnError::Input(format!(
                    "{len} values told of {n} pictures of {w}x{h}"
                )));
            }
        };
        let feed = |name: &str| {
            Some(match name {
                QUANTIZER => Tensor::new(told_shape, told),
                _ => Tensor::new([n, 1, h, w], x),
            })
        };
        let [y] = self.graph.run(feed, ["y"], cancel)?;
        let scale = self.facts.scale;
        let upscaled = Upscaled {
            y,
            shape: [n, 1, scale * h, scale * w],
        };
        elements::<f32>(&*upscaled.y, upscaled.shape)
            .map_err(|what| self.graph.failed(format!("output y: {what}")))?;
        Ok(upscaled)
    }
}

/// What a network made of a batch.
#[derive(Debug)]
pub struct Upscaled {
    y: Box<dyn Output>,
    shape: [usize; 4],
}

impl Upscaled {
    /// Picture `i`, `[scale·h, scale·w]`, in the units of the input, not clipped.
    ///
    /// # Panics
    /// When the batch has no picture `i`.
    pub fn picture(&self, i: usize) -> &[f32] {
        let data =
            elements::<f32>(&*self.y, self.shape).expect("the shape was checked after the run");
        let len = self.shape[2] * self.shape[3];
        &data[i * len..(i + 1) * len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            scale: 2,
            file: "x2.onnx".into(),
            sha256: "0".repeat(64),
            radius: 9,
            fold: 1,
            parameters: 12_000,
            macs_per_pixel: 12_000,
            precision: "float32".into(),
            channels: None,
        }
    }

    #[test]
    fn hostile_entries_are_refused() {
        assert!(entry().check().is_ok());
        type Change = fn(&mut Entry);
        let cases: [(Change, &str); 11] = [
            (|e| e.scale = 0, "scale 0"),
            (|e| e.scale = 5, "scale 5"),
            (|e| e.file = "../x2.onnx".into(), "plain file name"),
            (|e| e.file = "/etc/passwd".into(), "plain file name"),
            (|e| e.file = "..".into(), "plain file name"),
            (|e| e.sha256 = "g".repeat(64), "hexadecimal"),
            (|e| e.radius = usize::MAX, "radius"),
            (|e| e.fold = 0, "fold"),
            (|e| e.fold = 2, "fold"),
            (|e| e.precision = "float16".into(), "float16"),
            (|e| e.channels = Some(0), "channels"),
        ];
        for (change, expected) in cases {
            let mut entry = entry();
            change(&mut entry);
            let error = entry.check().unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn memory_is_estimated_from_the_widest_layer() {
        let mut facts = entry().check().unwrap().facts;
        // 12000 weights in one layer would be 36 channels.
        assert_eq!(facts.bytes_per_sample(), 4 * (3 * 36 + 1 + 8));
        facts.channels = Some(16);
        assert_eq!(facts.bytes_per_sample(), 4 * (3 * 16 + 1 + 8));
        facts.fold = 2;
        assert_eq!(facts.bytes_per_sample(), 4 * (3 * 4 + 1 + 8));
        facts.fold = 1;
        facts.channels = None;
        facts.parameters = u64::MAX;
        assert_eq!(facts.bytes_per_sample(), 4 * (3 * MAX_CHANNELS + 1 + 8));
    }

    /// Whatever ships can be opened and names itself as its folder does.
    #[test]
    fn every_embedded_bundle_is_sound() {
        for bundle in embedded_of(Kind::Sr) {
            let opened = SrBundle::open(&ModelSource::Embedded(bundle.folder.into())).unwrap();
            assert_eq!(opened.name(), bundle.folder);
            for network in &opened.networks {
                opened
                    .files
                    .verified(&network.file, &network.digest)
                    .unwrap();
            }
        }
        assert_eq!(embedded_sr().len(), embedded_of(Kind::Sr).count());
    }
}
