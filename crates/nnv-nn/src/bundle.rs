// SPDX-License-Identifier: MPL-2.0
//! Model bundles: `bundle.toml`, hashes, tables and known answers, embedded in the plugin or from a
//! folder.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use nnv_bitstream::limits::QUANTIZERS;
use nnv_format::entropy::SymbolTables;
use nnv_format::entropy::tables::{BINS, SCALES};
use nnv_format::tables::{LATENT_CHANNELS, NetworkSet, Tables};

use super::error::{NnError, Result};
use super::files::open_inside;

include!(concat!(env!("OUT_DIR"), "/embedded_bundles.rs"));

/// Bounds that keep a hostile bundle from exhausting memory; real bundles stay far below.
const MAX_TOML: u64 = 1 << 20;
const MAX_FILE: u64 = 256 << 20;
const MAX_HYPER_CHANNELS: usize = 256;
const MAX_QVEC_CHANNELS: usize = 1024;
const MAX_ANSWER_ELEMENTS: usize = 1 << 24;

/// Files whose digests make up the bundle's hash, in this order.
const NORMATIVE_FILES: [&str; 5] = [
    "key_prior.onnx",
    "key_synth.onnx",
    "inter_prior.onnx",
    "inter_synth.onnx",
    "tables.bin",
];
/// Inputs of the known answers.
const ANSWERS: &str = "kat.bin";
/// What encoders need beside them. A bundle without these is for decoding: earlier ones, which
/// streams name, and those that were fetched.
const ENCODER_FILES: [&str; 3] = ["key_enc.onnx", "key_mean.onnx", "inter_enc.onnx"];

/// What a bundle's networks are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Encoder and decoder.
    Codec,
    /// Super-resolution.
    Sr,
    /// Forecast of a network's throughput.
    Network,
    /// Quality of shots over the quantizer.
    Rdo,
    /// Quality of video without its original.
    Quality,
}

impl Kind {
    /// The name in `bundle.toml`.
    fn as_str(self) -> &'static str {
        match self {
            Self::Codec => "codec",
            Self::Sr => "sr",
            Self::Network => "network",
            Self::Rdo => "rdo",
            Self::Quality => "quality",
        }
    }
}

/// A bundle that `build.rs` compiled in: where it lay, the folder's name and its files.
pub(super) struct EmbeddedBundle {
    kind: Kind,
    pub(super) folder: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

/// The bundles of one kind that are compiled in.
pub(super) fn embedded_of(kind: Kind) -> impl Iterator<Item = &'static EmbeddedBundle> {
    EMBEDDED.iter().filter(move |bundle| bundle.kind == kind)
}

/// All bundles that are compiled in.
pub(super) fn all_embedded() -> impl Iterator<Item = &'static EmbeddedBundle> {
    EMBEDDED.iter()
}

impl EmbeddedBundle {
    pub(super) fn files(&self) -> &'static [(&'static str, &'static [u8])] {
        self.files
    }

    pub(super) fn file(&self, name: &str) -> Option<&'static [u8]> {
        self.files
            .iter()
            .find(|(n, _)| *n == name)
            .map(|&(_, bytes)| bytes)
    }
}

/// Where a bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// Built into the plugin, by the name of its folder under `models/` or `models/earlier/`
    /// (codecs), or `models/sr/`.
    Embedded(String),
    /// A folder that holds `bundle.toml`.
    Folder(PathBuf),
    /// Files that the caller has fetched from somewhere.
    Memory(MemoryBundle),
}

/// The files of a bundle in memory. What only encoders need may be left out.
#[derive(Clone, PartialEq, Eq)]
pub struct MemoryBundle {
    label: String,
    files: Arc<BTreeMap<String, Vec<u8>>>,
}

impl MemoryBundle {
    /// Files by name, `bundle.toml` among them. `label` is for messages: where they come from.
    pub fn new(label: String, files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let files = Arc::new(files.into_iter().collect());
        Self { label, files }
    }

    /// Names of the files that a decoder needs.
    pub fn wanted() -> impl Iterator<Item = &'static str> {
        let names = NORMATIVE_FILES.iter().copied();
        ["bundle.toml", ANSWERS].into_iter().chain(names)
    }

    pub(super) fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }
}

/// Files that bundles of the codec list, beside `bundle.toml`.
fn all_files() -> impl Iterator<Item = &'static str> {
    let names = NORMATIVE_FILES.iter().chain(&ENCODER_FILES);
    names.copied().chain([ANSWERS])
}

impl std::fmt::Debug for MemoryBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBundle")
            .field("label", &self.label)
            .field("files", &self.files.keys())
            .finish()
    }
}

impl ModelSource {
    /// Name to show in messages.
    pub fn label(&self) -> Cow<'_, str> {
        match self {
            Self::Embedded(name) => name.into(),
            Self::Folder(path) => path.to_string_lossy(),
            Self::Memory(bundle) => (&*bundle.label).into(),
        }
    }
}

/// Facts of an embedded codec bundle, read without verifying it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedInfo {
    /// Name to give to [`ModelSource::Embedded`].
    pub name: &'static str,
    /// The bundle's hash as `bundle.toml` states it.
    pub hash: [u8; 32],
    /// An earlier bundle, kept for the streams that name it: it has no encoder networks.
    pub decodes_only: bool,
}

/// The codec's bundles built into this plugin, also earlier ones, which decode alone. Unreadable
/// ones are left out here and explained when loaded by name.
pub fn embedded() -> Vec<EmbeddedInfo> {
    #[derive(Deserialize)]
    struct Head {
        hash: String,
    }
    embedded_of(Kind::Codec)
        .filter_map(|bundle| {
            let text = std::str::from_utf8(bundle.file("bundle.toml")?).ok()?;
            let head: Head = toml::from_str(text).ok()?;
            Some(EmbeddedInfo {
                name: bundle.folder,
                hash: parse_hex(&head.hash)?,
                decodes_only: ENCODER_FILES.iter().any(|n| bundle.file(n).is_none()),
            })
        })
        .collect()
}

#[derive(Deserialize)]
struct Manifest {
    name: String,
    hash: String,
    latent_channels: usize,
    hyper_channels: usize,
    qvec_channels: usize,
    files: BTreeMap<String, String>,
    tables: BTreeMap<String, TableEntry>,
    #[serde(default)]
    known_answer: Vec<KnownAnswerEntry>,
}

#[derive(Deserialize)]
struct TableEntry {
    dtype: String,
    shape: Vec<usize>,
    offset: usize,
}

#[derive(Deserialize)]
struct KnownAnswerEntry {
    graph: String,
    inputs: Vec<AnswerInputEntry>,
    outputs: Vec<AnswerOutputEntry>,
}

#[derive(Deserialize)]
struct AnswerInputEntry {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    offset: usize,
}

#[derive(Deserialize)]
struct AnswerOutputEntry {
    name: String,
    crc32c: String,
}

/// Element types that bundles store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DType {
    U8,
    I8,
    U16,
    I16,
    F32,
}

impl DType {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "u8" => Self::U8,
            "i8" => Self::I8,
            "u16" => Self::U16,
            "i16" => Self::I16,
            "f32" => Self::F32,
            _ => return None,
        })
    }

    pub(super) fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::F32 => 4,
        }
    }
}

/// One input of a known-answer test; `data` is little-endian.
#[derive(Debug)]
pub(super) struct AnswerInput {
    pub name: String,
    pub dtype: DType,
    pub shape: [usize; 4],
    pub data: Vec<u8>,
}

/// A stored input of a normative graph and the checksums of what it must give.
#[derive(Debug)]
pub(super) struct KnownAnswer {
    pub graph: String,
    pub inputs: Vec<AnswerInput>,
    /// Name and CRC-32C of each output.
    pub outputs: Vec<(String, u32)>,
}

/// A bundle whose manifest, tables and known answers were verified. Graph files are verified as
/// they are read.
#[derive(Debug)]
pub(super) struct Bundle {
    pub name: String,
    pub hash: [u8; 32],
    /// Digest of the manifest, hence of every file: tells bundles apart that differ only in encoder
    /// graphs.
    pub identity: [u8; 32],
    pub hyper_channels: usize,
    pub qvec_channels: usize,
    pub known_answers: Vec<KnownAnswer>,
    key: Tables,
    inter: Tables,
    files: Files,
    digests: BTreeMap<String, [u8; 32]>,
}

#[derive(Debug)]
pub(super) enum Files {
    Embedded(&'static [(&'static str, &'static [u8])]),
    Folder(PathBuf),
    Memory(MemoryBundle),
}

impl Files {
    /// Finds a bundle. One of another kind is found, too, so that it can be refused by what it is.
    pub(super) fn find(source: &ModelSource, kind: Kind) -> Result<Self> {
        match source {
            ModelSource::Folder(folder) => Ok(Self::Folder(folder.clone())),
            ModelSource::Memory(bundle) => Ok(Self::Memory(bundle.clone())),
            ModelSource::Embedded(name) => {
                let of_any_kind = || EMBEDDED.iter().find(|b| b.folder == name);
                let bundle = embedded_of(kind).find(|b| b.folder == name);
                match bundle.or_else(of_any_kind) {
                    Some(bundle) => Ok(Self::Embedded(bundle.files)),
                    None => Err(NnError::UnknownModel {
                        name: name.clone(),
                        known: known_names(kind),
                    }),
                }
            }
        }
    }

    /// Reads `bundle.toml` of a bundle of this kind, and its digest.
    ///
    /// Format and kind decide whether the rest can be understood at all, so they are judged first.
    /// They stand in the table `bundle`, or at the top as in the codec's bundles; without a kind, a
    /// bundle is the codec's.
    pub(super) fn manifest(&self, kind: Kind) -> Result<(String, [u8; 32]), String> {
        #[derive(Deserialize)]
        struct Head {
            format: Option<u32>,
            kind: Option<String>,
        }
        #[derive(Deserialize)]
        struct Table {
            bundle: Head,
        }
        let bytes = self.read("bundle.toml", MAX_TOML)?;
        let identity = Sha256::digest(&bytes).into();
        let text = std::str::from_utf8(&bytes).map_err(|_| "bundle.toml is not UTF-8")?;
        let head = match toml::from_str::<Table>(text) {
            Ok(table) => table.bundle,
            Err(_) => toml::from_str(text).map_err(|e| manifest_error(&e))?,
        };
        match head.format {
            Some(1) => {}
            Some(other) => {
                return Err(format!(
                    "bundle.toml has format {other}, this version reads format 1"
                ));
            }
            None => {
                return Err("bundle.toml states no format, this version reads format 1".into());
            }
        }
        let found = head.kind.as_deref().unwrap_or(Kind::Codec.as_str());
        if found != kind.as_str() {
            return Err(format!(
                "it is of kind \"{}\", a \"{}\" bundle is needed",
                found.chars().take(32).collect::<String>(),
                kind.as_str()
            ));
        }
        Ok((text.to_string(), identity))
    }

    /// Reads a file and compares its hash.
    pub(super) fn verified(
        &self,
        name: &str,
        expected: &[u8; 32],
    ) -> Result<Cow<'static, [u8]>, String> {
        let bytes = self.read(name, MAX_FILE)?;
        let got: [u8; 32] = Sha256::digest(&bytes).into();
        if got != *expected {
            return Err(format!(
                "the file {} is damaged or was changed: its SHA-256 is {}, bundle.toml says {}",
                self.place(name),
                hex(&got),
                hex(expected)
            ));
        }
        Ok(bytes)
    }

    /// Where a file is, for messages.
    fn place(&self, name: &str) -> String {
        match self {
            Self::Embedded(_) => format!("{name} (built in)"),
            Self::Folder(folder) => folder.join(name).display().to_string(),
            Self::Memory(bundle) => format!("{name} from {}", bundle.label),
        }
    }

    fn read(&self, name: &str, limit: u64) -> Result<Cow<'static, [u8]>, String> {
        match self {
            Self::Embedded(files) => match files.iter().find(|(n, _)| *n == name) {
                Some(&(_, bytes)) => Ok(Cow::Borrowed(bytes)),
                None => Err(missing(name)),
            },
            Self::Memory(bundle) => match bundle.files.get(name) {
                Some(bytes) if bytes.len() as u64 > limit => Err(format!(
                    "the file {} is larger than {limit} bytes",
                    self.place(name)
                )),
                Some(bytes) => Ok(Cow::Owned(bytes.clone())),
                None => Err(missing(name)),
            },
            Self::Folder(folder) => {
                let path = folder.join(name);
                let fail = |e| unreadable(&path, &e);
                let file = open_inside(folder, name).map_err(fail)?;
                let mut bytes = Vec::new();
                // One byte more than allowed tells a file that is too long from one that just fits.
                file.take(limit + 1).read_to_end(&mut bytes).map_err(fail)?;
                if bytes.len() as u64 > limit {
                    return Err(format!(
                        "the file {} is larger than {limit} bytes",
                        path.display()
                    ));
                }
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Checks that a file is there and can be read. What encoders need may be missing.
    fn probe(&self, name: &str) -> Result<(), String> {
        let spare = ENCODER_FILES.contains(&name);
        match self {
            Self::Embedded(files) if spare || files.iter().any(|(n, _)| *n == name) => Ok(()),
            Self::Memory(bundle) if spare || bundle.files.contains_key(name) => Ok(()),
            Self::Embedded(_) | Self::Memory(_) => Err(missing(name)),
            Self::Folder(folder) => match open_inside(folder, name) {
                Err(e) if spare && e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                opened => opened
                    .map(drop)
                    .map_err(|e| unreadable(&folder.join(name), &e)),
            },
        }
    }
}

fn missing(name: &str) -> String {
    match ENCODER_FILES.contains(&name) {
        true => format!("the file {name} is missing: this bundle is for decoding alone"),
        false => format!("the file {name} is missing"),
    }
}

fn unreadable(path: &Path, e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::NotFound => format!(
            "the file {} is missing; model-path must name the folder of a whole bundle",
            path.display()
        ),
        _ => format!(
            "the file {} cannot be read: {e}; mend it, or give another bundle's folder with \
             model-path",
            path.display()
        ),
    }
}

impl Bundle {
    /// Opens a bundle of kind `codec`.
    pub(super) fn open(source: &ModelSource) -> Result<Self> {
        let files = Files::find(source, Kind::Codec)?;
        Self::from_files(files).map_err(|what| NnError::Bundle {
            bundle: source.label().into_owned(),
            what,
        })
    }

    fn from_files(files: Files) -> Result<Self, String> {
        let (text, identity) = files.manifest(Kind::Codec)?;
        let manifest: Manifest = toml::from_str(&text).map_err(|e| manifest_error(&e))?;
        if manifest.latent_channels != LATENT_CHANNELS {
            return Err(format!(
                "latent_channels is {}, it must be {LATENT_CHANNELS}",
                manifest.latent_channels
            ));
        }
        for (what, value, max) in [
            (
                "hyper_channels",
                manifest.hyper_channels,
                MAX_HYPER_CHANNELS,
            ),
            ("qvec_channels", manifest.qvec_channels, MAX_QVEC_CHANNELS),
        ] {
            if value == 0 || value > max {
                return Err(format!("{what} is {value}, it must be within 1..={max}"));
            }
        }

        let mut digests = BTreeMap::new();
        for name in all_files() {
            let digest = manifest
                .files
                .get(name)
                .ok_or_else(|| format!("bundle.toml lists no hash of {name}"))?;
            let digest = parse_hex(digest)
                .ok_or_else(|| format!("the hash of {name} is not 64 hexadecimal digits"))?;
            files.probe(name)?;
            digests.insert(name.to_string(), digest);
        }
        let hash: [u8; 32] = NORMATIVE_FILES
            .iter()
            .fold(Sha256::new(), |h, n| h.chain_update(digests[*n]))
            .finalize()
            .into();
        if parse_hex(&manifest.hash) != Some(hash) {
            return Err(format!(
                "bundle.toml states the hash {}, its files make {}",
                manifest.hash.chars().take(64).collect::<String>(),
                hex(&hash)
            ));
        }

        let verified = |name: &str| files.verified(name, &digests[name]);
        let tables = verified("tables.bin")?;
        let reader = TableReader {
            bytes: &tables,
            entries: &manifest.tables,
            hyper_channels: manifest.hyper_channels,
            qvec_channels: manifest.qvec_channels,
        };
        let (key, inter) = (reader.kind("key")?, reader.kind("inter")?);
        let answers = verified(ANSWERS)?;
        let known_answers = manifest
            .known_answer
            .into_iter()
            .map(|entry| known_answer(entry, &answers))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: manifest.name,
            hash,
            identity,
            hyper_channels: manifest.hyper_channels,
            qvec_channels: manifest.qvec_channels,
            known_answers,
            key,
            inter,
            files,
            digests,
        })
    }

    /// Reads a file of the bundle and verifies its hash.
    pub(super) fn read(&self, name: &str) -> Result<Cow<'static, [u8]>, String> {
        let expected = self
            .digests
            .get(name)
            .ok_or_else(|| format!("bundle.toml lists no hash of {name}"))?;
        self.files.verified(name, expected)
    }

    pub(super) fn tables(&self, kind: NetworkSet) -> &Tables {
        match kind {
            NetworkSet::Key => &self.key,
            NetworkSet::Inter => &self.inter,
        }
    }
}

struct TableReader<'a> {
    bytes: &'a [u8],
    entries: &'a BTreeMap<String, TableEntry>,
    hyper_channels: usize,
    qvec_channels: usize,
}

impl TableReader<'_> {
    fn bytes(&self, name: &str, dtype: DType, shape: &[usize]) -> Result<&[u8], String> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| format!("bundle.toml lists no table {name}"))?;
        if DType::parse(&entry.dtype) != Some(dtype) || entry.shape != shape {
            return Err(format!(
                "table {name} is {} {:?}, it must be {dtype:?} {shape:?}",
                entry.dtype.chars().take(16).collect::<String>(),
                entry.shape.iter().take(8).collect::<Vec<_>>()
            ));
        }
        let len = shape.iter().product::<usize>() * dtype.size();
        entry
            .offset
            .checked_add(len)
            .and_then(|end| self.bytes.get(entry.offset..end))
            .ok_or_else(|| {
                format!(
                    "table {name} reaches beyond tables.bin ({} bytes)",
                    self.bytes.len()
                )
            })
    }

    fn u16(&self, name: &str, shape: &[usize]) -> Result<Vec<u16>, String> {
        let bytes = self.bytes(name, DType::U16, shape)?;
        Ok(bytes
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
            .collect())
    }

    fn kind(&self, kind: &str) -> Result<Tables, String> {
        let name = |table: &str| format!("{kind}.{table}");
        let step = self.u16(&name("step"), &[QUANTIZERS, LATENT_CHANNELS])?;
        let qvec = self.bytes(&name("qvec"), DType::I8, &[QUANTIZERS, self.qvec_channels])?;
        let qoff = self.bytes(&name("qoff"), DType::I16, &[QUANTIZERS])?;
        let probabilities =
            |table: &str, rows: usize, first_used: usize| -> Result<Vec<u16>, String> {
                let flat = self.u16(&name(table), &[rows, BINS])?;
                if flat[first_used * BINS..].contains(&0) {
                    return Err(format!("table {} holds a zero probability", name(table)));
                }
                Ok(flat)
            };
        // Row 0 is that of the scale index that is not coded.
        let y_prob = probabilities("y_prob", SCALES, 1)?;
        let z_prob = probabilities("z_prob", self.hyper_channels, 0)?;
        let y_order = self.u16(&name("y_order"), &[LATENT_CHANNELS])?;
        let of_kind = |what: String| format!("tables of {kind}: {what}");
        let symbols =
            SymbolTables::new(&y_prob, &z_prob, &y_order).map_err(|e| of_kind(e.to_string()))?;
        let qvec = qvec.iter().map(|&b| b as i8).collect();
        let qoff = qoff.as_chunks::<2>().0.iter();
        let qoff = qoff.map(|&b| i16::from_le_bytes(b)).collect();
        Tables::new(step, qvec, qoff, symbols).map_err(of_kind)
    }
}

fn known_answer(entry: KnownAnswerEntry, bytes: &[u8]) -> Result<KnownAnswer, String> {
    let graph = entry.graph;
    let inputs = entry
        .inputs
        .into_iter()
        .map(|input| {
            let what = || format!("known answer of {graph}, input {}", input.name);
            let dtype = DType::parse(&input.dtype)
                .ok_or_else(|| format!("{}: unknown dtype {}", what(), input.dtype))?;
            let elements = input
                .shape
                .iter()
                .try_fold(1usize, |n, &d| n.checked_mul(d))
                .filter(|&n| n > 0 && n <= MAX_ANSWER_ELEMENTS)
                .ok_or_else(|| {
                    format!("{}: shape {:?} is empty or too large", what(), input.shape)
                })?;
            let shape = <[usize; 4]>::try_from(&*input.shape).map_err(|_| {
                format!(
                    "{}: shape {:?} has not four dimensions",
                    what(),
                    input.shape
                )
            })?;
            let data = input
                .offset
                .checked_add(elements * dtype.size())
                .and_then(|end| bytes.get(input.offset..end))
                .ok_or_else(|| {
                    format!("{} reaches beyond kat.bin ({} bytes)", what(), bytes.len())
                })?
                .to_vec();
            Ok(AnswerInput {
                name: input.name,
                dtype,
                shape,
                data,
            })
        })
        .collect::<Result<_, String>>()?;
    let outputs = entry
        .outputs
        .into_iter()
        .map(|output| {
            u32::from_str_radix(&output.crc32c, 16)
                .map(|crc| (output.name.clone(), crc))
                .map_err(|_| {
                    format!(
                        "known answer of {graph}, output {}: crc32c is not 8 hexadecimal digits",
                        output.name
                    )
                })
        })
        .collect::<Result<_, String>>()?;
    Ok(KnownAnswer {
        graph,
        inputs,
        outputs,
    })
}

/// Names of what is compiled in, for messages.
pub(super) fn known_names(kind: Kind) -> String {
    let names: Vec<_> = embedded_of(kind).map(|b| b.folder).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

pub(super) fn manifest_error(error: &toml::de::Error) -> String {
    format!("bundle.toml cannot be understood: {}", error.message())
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(super) fn parse_hex(text: &str) -> Option<[u8; 32]> {
    // `from_str_radix` alone would take a sign.
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

/// True when the path looks like a bundle folder.
pub fn is_bundle_folder(path: &Path) -> bool {
    path.join("bundle.toml").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(unix)]
    use crate::files::tests::TempFolder;

    /// Tables, hashes and known answers of what ships; the graphs are run by `tests/exactness.rs`.
    #[test]
    fn every_embedded_bundle_is_sound() {
        for info in embedded() {
            let bundle = Bundle::open(&ModelSource::Embedded(info.name.into())).unwrap();
            assert_eq!(bundle.hash, info.hash);
            if info.decodes_only {
                let earlier = format!("{}-{}", bundle.name, hex(&bundle.hash[..8]));
                assert_eq!(info.name, earlier);
                for name in MemoryBundle::wanted().filter(|n| *n != "bundle.toml") {
                    bundle.read(name).unwrap();
                }
                let error = bundle.read(ENCODER_FILES[0]).unwrap_err();
                assert!(error.contains("for decoding alone"), "{error}");
            } else {
                assert_eq!(info.name, bundle.name);
                all_files().for_each(|name| drop(bundle.read(name).unwrap()));
            }
            for kind in [NetworkSet::Key, NetworkSet::Inter] {
                let tables = bundle.tables(kind);
                for q in 1..QUANTIZERS as u8 {
                    assert_eq!(tables.qvec(q).len(), bundle.qvec_channels);
                    let coarser = tables
                        .step(q)
                        .iter()
                        .zip(tables.step(q - 1))
                        .all(|(a, b)| a >= b);
                    assert!(
                        coarser,
                        "{}: quantizer {q} is finer than the one below",
                        info.name
                    );
                }
            }
        }
        // Every folder that build.rs took in has a readable head.
        assert_eq!(embedded().len(), embedded_of(Kind::Codec).count());
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_refused_at_once_and_damage_is_named_by_its_place() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/realtime");
        for name in all_files().chain(["bundle.toml"]) {
            for kind in ["pipe", "link", "damage"] {
                let folder = TempFolder::new(&format!("bundle-{kind}-{name}"));
                for file in std::fs::read_dir(&source).unwrap().flatten() {
                    std::fs::copy(file.path(), folder.0.join(file.file_name())).unwrap();
                }
                let path = folder.0.join(name);
                match kind {
                    "damage" => {
                        let mut bytes = std::fs::read(&path).unwrap();
                        let at = bytes.len() / 2;
                        bytes[at] ^= 0x80;
                        std::fs::write(&path, bytes).unwrap();
                    }
                    _ => {
                        std::fs::remove_file(&path).unwrap();
                        if kind == "pipe" {
                            folder.pipe(name);
                        } else {
                            std::os::unix::fs::symlink(source.join(name), &path).unwrap();
                        }
                    }
                }
                // Networks are read when they are needed.
                let error = Bundle::open(&ModelSource::Folder(folder.0.clone()))
                    .and_then(|bundle| {
                        bundle.read(name).map_err(|what| NnError::Bundle {
                            bundle: bundle.name.clone(),
                            what,
                        })
                    })
                    .expect_err("it is refused")
                    .to_string();
                let place = folder.0.display().to_string();
                assert!(error.contains(&place) && error.contains(name), "{error}");
            }
        }
    }

    #[test]
    fn bundles_in_memory_need_what_decoders_need() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/realtime");
        let whole: BTreeMap<String, Vec<u8>> = MemoryBundle::wanted()
            .map(|name| (name.to_owned(), std::fs::read(folder.join(name)).unwrap()))
            .collect();
        let open = |files: &BTreeMap<String, Vec<u8>>| {
            let bundle = MemoryBundle::new("https://example.org/realtime/".into(), files.clone());
            let bundle = Bundle::open(&ModelSource::Memory(bundle))?;
            for name in NORMATIVE_FILES {
                bundle.read(name).map_err(|what| NnError::Bundle {
                    bundle: bundle.name.clone(),
                    what,
                })?;
            }
            Ok::<_, NnError>(bundle)
        };
        let bundle = open(&whole).unwrap();
        let same = Bundle::open(&ModelSource::Folder(folder)).unwrap();
        assert_eq!((bundle.hash, bundle.identity), (same.hash, same.identity));
        let encoder = bundle.read("key_enc.onnx").unwrap_err();
        assert!(encoder.starts_with("the file key_enc.onnx is missing"));
        for name in MemoryBundle::wanted() {
            let mut files = whole.clone();
            let bytes = files.remove(name).unwrap();
            let error = open(&files).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} is missing")), "{error}");
            for damage in [
                |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
                |bytes: &mut Vec<u8>| {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0x80;
                },
                |bytes: &mut Vec<u8>| *bytes = b"<!doctype html><title>Not found</title>".into(),
                |bytes: &mut Vec<u8>| bytes.clear(),
            ] {
                let mut damaged = bytes.clone();
                damage(&mut damaged);
                files.insert(name.into(), damaged);
                let error = open(&files).unwrap_err().to_string();
                assert!(error.contains(name), "{name}: {error}");
                if name != "bundle.toml" {
                    assert!(error.contains("from https://example.org"), "{error}");
                }
            }
        }
    }

    #[test]
    fn hashes_are_parsed_strictly() {
        let bytes: [u8; 32] = std::array::from_fn(|i| i as u8 * 7);
        assert_eq!(parse_hex(&hex(&bytes)), Some(bytes));
        assert_eq!(parse_hex(""), None);
        assert_eq!(parse_hex(&"g".repeat(64)), None);
        assert_eq!(parse_hex(&"+1".repeat(32)), None);
        assert_eq!(parse_hex(&"é".repeat(32)), None);
    }

    #[test]
    fn hostile_known_answers_are_refused() {
        let entry = |shape: &[usize], offset| KnownAnswerEntry {
            graph: "key_prior".into(),
            inputs: vec![AnswerInputEntry {
                name: "z_up".into(),
                dtype: "i16".into(),
                shape: shape.into(),
                offset,
            }],
            outputs: Vec::new(),
        };
        let bytes = [0; 16];
        assert_eq!(
            known_answer(entry(&[1, 1, 2, 4], 0), &bytes)
                .unwrap()
                .inputs[0]
                .data
                .len(),
            16
        );
        for (shape, offset, expected) in [
            (&[1, 1, 2, 4][..], 1, "beyond kat.bin"),
            (&[1, 1, 2, 4], usize::MAX, "beyond kat.bin"),
            (&[usize::MAX, 2], 0, "too large"),
            (&[1 << 20, 1 << 20], 0, "too large"),
            (&[0], 0, "empty"),
            (&[2, 4], 0, "four dimensions"),
        ] {
            let error = known_answer(entry(shape, offset), &bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
