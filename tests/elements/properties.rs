// SPDX-License-Identifier: MPL-2.0
//! Registration, properties, caps, and the errors of a wrong set-up.

use gst::glib;
use gst::prelude::*;

use crate::util::*;

const COMMON: [&str; 7] = [
    "model",
    "model-path",
    "execution-provider",
    "device-id",
    "threads",
    "active-execution-provider",
    "stats",
];

fn specs(element: &str) -> Vec<glib::ParamSpec> {
    let element = self::element(element, &[]);
    element
        .list_properties()
        .iter()
        .filter(|spec| spec.owner_type() == element.type_())
        .cloned()
        .collect()
}

fn factory(name: &str) -> gst::ElementFactory {
    gst::ElementFactory::find(name).unwrap()
}

/// Caps of a pad's template.
fn template(name: &str, pad: &str) -> gst::Caps {
    factory(name)
        .static_pad_templates()
        .iter()
        .find(|t| t.name_template() == pad)
        .unwrap()
        .caps()
}

#[test]
fn every_property_is_there_and_explained() {
    init();
    let encoder = [
        "rate-control",
        "quality-metric",
        "target-quality",
        "quality-floor",
        "quantizer",
        "bitrate",
        "max-bitrate",
        "vbv-buf-capacity",
        "min-quantizer",
        "max-quantizer",
        "key-int-max",
        "bframes",
        "lookahead",
        "tune",
        "zerolatency",
        "tuning",
        "speed-preset",
        "speed-control",
        "pass",
        "stats-file",
        "batch-size",
        "frame-checksum",
        "error-resilience",
    ];
    for (element, own) in [
        ("nnvenc", &encoder[..]),
        (
            "nnvdec",
            &["analysis", "conceal", "max-level", "max-pixels"],
        ),
        (
            "nnsr",
            &[
                "scale",
                "strength",
                "self-ensemble",
                "source-bitrate",
                "batch-size",
                "max-pixels",
                "qos-mode",
                "analysis",
            ],
        ),
    ] {
        let specs = specs(element);
        let mut names: Vec<_> = specs.iter().map(|s| s.name()).collect();
        let mut expected: Vec<_> = own.iter().chain(&COMMON).copied().collect();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
        for spec in &specs {
            let blurb = spec.blurb().unwrap_or_default();
            assert!(blurb.len() > 20, "{element} {}: {blurb}", spec.name());
            assert!(spec.nick() != spec.name(), "{element} {}", spec.name());
            let when = glib::ParamFlags::from_bits_retain(
                (gst::ffi::GST_PARAM_MUTABLE_PLAYING | gst::ffi::GST_PARAM_MUTABLE_READY) as u32,
            );
            assert!(
                spec.flags().intersects(when) || !spec.flags().contains(glib::ParamFlags::WRITABLE),
                "{element} {} does not say when it may be set",
                spec.name()
            );
        }
        for unit in [("bitrate", "kbit/s"), ("vbv-buf-capacity", "ms")] {
            if let Some(spec) = specs.iter().find(|s| s.name() == unit.0) {
                assert!(spec.blurb().unwrap().contains(unit.1));
            }
        }
    }
}

#[test]
fn properties_keep_what_is_set() {
    let enc = element(
        "nnvenc",
        &[
            ("rate-control", "cbr"),
            ("quantizer", "63"),
            ("bitrate", "777"),
            ("max-bitrate", "888"),
            ("vbv-buf-capacity", "250"),
            ("min-quantizer", "3"),
            ("max-quantizer", "60"),
            ("key-int-max", "1"),
            ("bframes", "7"),
            ("lookahead", "2"),
            ("tune", "zerolatency"),
            ("speed-preset", "ultrafast"),
            ("speed-control", "fixed"),
            ("pass", "second"),
            ("stats-file", "pass.csv"),
            ("batch-size", "2"),
            ("frame-checksum", "true"),
            ("error-resilience", "ltr"),
            ("model", "other"),
            ("model-path", "/nowhere"),
            ("execution-provider", "cpu"),
            ("device-id", "1"),
            ("threads", "3"),
        ],
    );
    for (name, value) in [
        ("quantizer", 63u32),
        ("bitrate", 777),
        ("max-bitrate", 888),
        ("vbv-buf-capacity", 250),
        ("min-quantizer", 3),
        ("max-quantizer", 60),
        ("key-int-max", 1),
        ("bframes", 7),
        ("lookahead", 2),
        ("batch-size", 2),
        ("device-id", 1),
        ("threads", 3),
    ] {
        assert_eq!(enc.property::<u32>(name), value, "{name}");
    }
    assert_eq!(enc.property::<String>("model"), "other");
    assert_eq!(enc.property::<String>("model-path"), "/nowhere");
    assert!(enc.property::<bool>("frame-checksum"));
    for (name, value) in [
        ("rate-control", "cbr"),
        ("tune", "zerolatency"),
        ("speed-preset", "ultrafast"),
        ("speed-control", "fixed"),
        ("pass", "second"),
        ("error-resilience", "ltr"),
        ("execution-provider", "cpu"),
    ] {
        let value_now = enc.property_value(name);
        let (_, now) = glib::EnumValue::from_value(&value_now).unwrap();
        assert_eq!(now.nick(), value);
    }
    assert_eq!(
        enc.property::<Option<String>>("active-execution-provider"),
        None
    );
    let dec = element("nnvdec", &[("conceal", "false")]);
    assert!(!dec.property::<bool>("conceal"));
    assert_eq!(dec.property::<Option<String>>("model"), None);
}

#[test]
fn ranks_and_templates_fit_together() {
    init();
    for name in ["nnvenc", "nnvdec", "nnvparse"] {
        assert_eq!(factory(name).rank(), gst::Rank::PRIMARY, "{name}");
    }
    // Nobody gets super-resolution unasked.
    for name in ["nnsr", "nnqp", "nnvquality"] {
        assert_eq!(factory(name).rank(), gst::Rank::NONE, "{name}");
    }
    let parsed: gst::Caps = "video/x-nnv, stream-format=byte-stream, alignment=au, parsed=true"
        .parse()
        .unwrap();
    assert_eq!(template("nnvenc", "src"), parsed);
    assert_eq!(template("nnvparse", "src"), parsed);
    assert_eq!(template("nnvdec", "sink"), parsed);
    // What a file begins with, and what a demuxer of MP4 calls it.
    assert_eq!(
        template("nnvparse", "sink").to_string(),
        "video/x-nnv; video/x-gst-fourcc-nnv1"
    );
    for format in [
        "I420",
        "NV12",
        "I420_10LE",
        "P010_10LE",
        "Y444",
        "RGB",
        "GRAY8",
    ] {
        for (pad, size) in [("sink", 8192), ("src", 32768)] {
            let caps =
                format!("video/x-raw, format={format}, width={size}, height={size}, framerate=0/1");
            let caps = caps.parse::<gst::Caps>().unwrap();
            assert!(caps.is_subset(&template("nnsr", pad)), "{caps}");
        }
    }
    let raw = template("nnvenc", "sink");
    assert_eq!(raw, template("nnvdec", "src"));
    for format in [
        "I420",
        "NV12",
        "I420_10LE",
        "P010_10LE",
        "GRAY8",
        "GRAY16_LE",
    ] {
        let caps = format!("video/x-raw, format={format}, width=8192, height=8192, framerate=0/1");
        assert!(
            caps.parse::<gst::Caps>().unwrap().is_subset(&raw),
            "{format}"
        );
    }
}

/// Starts an encoder and returns the one error it must post.
fn start_error(properties: &[(&str, &str)]) -> String {
    init();
    let pipeline = gst::Pipeline::new();
    let enc = element("nnvenc", properties);
    pipeline.add(&enc).unwrap();
    assert!(pipeline.set_state(gst::State::Paused).is_err());
    let bus = pipeline.bus().unwrap();
    let errors: Vec<String> = std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Error]))
        .map(|m| match m.view() {
            gst::MessageView::Error(e) => e.error().to_string(),
            _ => unreachable!("only errors are popped"),
        })
        .collect();
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

#[test]
fn wrong_bundles_are_one_clear_error() {
    within(|| {
        let error = start_error(&[("model", "no-such-model")]);
        assert!(
            error.contains("no-such-model") && error.contains("model-path"),
            "{error}"
        );
        let error = start_error(&[("model-path", "/no/such/folder")]);
        assert!(error.contains("/no/such/folder"), "{error}");
        // A file where a folder is expected, and a folder without a bundle.
        let file = TempFile::with("bundle", b"not a bundle");
        let error = start_error(&[("model-path", file.path())]);
        assert!(error.contains(file.path()), "{error}");
        let folder = std::env::temp_dir();
        let error = start_error(&[("model-path", folder.to_str().unwrap())]);
        assert!(error.contains(folder.to_str().unwrap()), "{error}");
        let dec = element("nnvdec", &[("model-path", "/no/such/folder")]);
        assert!(dec.set_state(gst::State::Paused).is_err());
        dec.set_state(gst::State::Null).unwrap();
    });
}

/// A copy of the shipped bundle.
struct CopiedBundle(std::path::PathBuf);

impl CopiedBundle {
    fn new(name: &str) -> Self {
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/realtime");
        let folder = std::env::temp_dir().join(format!("nnv-bundle-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for entry in std::fs::read_dir(shipped).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        Self(folder)
    }
}

impl Drop for CopiedBundle {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn unreadable_bundles_say_which_file_and_what_to_do() {
    within(|| {
        // A link to itself cannot be read by anybody, not even by root.
        for file in ["bundle.toml", "tables.bin", "inter_synth.onnx"] {
            let bundle = CopiedBundle::new(file);
            let path = bundle.0.join(file);
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(&path, &path).unwrap();
            let error = start_error(&[("model-path", bundle.0.to_str().unwrap())]);
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains("cannot be read"), "{error}");
            assert!(error.contains("model-path"), "{error}");
        }
        // So are files without permission, for anybody but root.
        let bundle = CopiedBundle::new("permission");
        let path = bundle.0.join("tables.bin");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"").unwrap();
        let nobody = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        std::fs::set_permissions(&path, nobody).unwrap();
        if std::fs::File::open(&path).is_ok() {
            eprintln!("NOT TESTED: a file without permissions, which root can read");
            return;
        }
        let error = start_error(&[("model-path", bundle.0.to_str().unwrap())]);
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains("ermission"), "{error}");
    });
}

#[test]
fn a_bundle_that_cannot_be_written_to_works() {
    within(|| {
        let bundle = CopiedBundle::new("read-only");
        let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o555);
        std::fs::set_permissions(&bundle.0, read_only).unwrap();
        let before = std::fs::read_dir(&bundle.0).unwrap().count();
        let path = [("model-path", bundle.0.to_str().unwrap())];
        assert_eq!(encode(&i420(32, 32), 2, &path).len(), 2);
        // Root could write all the same: nothing tried to.
        assert_eq!(std::fs::read_dir(&bundle.0).unwrap().count(), before);
        let writable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&bundle.0, writable).unwrap();
    });
}

#[test]
fn a_provider_that_cannot_run_is_an_error_not_a_fallback() {
    within(|| {
        if nnv_nn::Provider::COMPILED.contains(&nnv_nn::Provider::TensorRt) {
            return;
        }
        let error = start_error(&[("execution-provider", "tensorrt")]);
        assert!(error.contains("tensorrt"), "{error}");
    });
}

/// Run by the next test in a process of its own, because a process loads ONNX Runtime once.
#[test]
#[ignore = "a part of missing_runtime_is_one_clear_error"]
fn missing_runtime_child() {
    let error = start_error(&[]);
    println!("child saw: {error}");
}

#[test]
fn missing_runtime_is_one_clear_error() {
    within(|| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "properties::missing_runtime_child",
                "--ignored",
                "--nocapture",
            ])
            .env("NNV_ORT_LIBRARY", "/no/such/libonnxruntime.so")
            .env("LD_LIBRARY_PATH", "")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        let line = text
            .lines()
            .find(|l| l.contains("child saw: "))
            .unwrap_or_default();
        assert!(line.contains("/no/such/libonnxruntime.so"), "{text}");
        assert!(line.contains("NNV_ORT_LIBRARY"), "{text}");
    });
}

#[test]
fn unsupported_input_is_refused_with_a_reason() {
    within(|| {
        let wrong = gst::parse::launch(
            "videotestsrc ! video/x-raw,format=RGB,width=64,height=64 ! nnvenc ! fakesink",
        );
        let error = wrong.expect_err("RGB is not taken").to_string();
        assert!(error.contains("can't handle caps"), "{error}");
        let interlaced = play(&launch(
            "videotestsrc num-buffers=2 ! video/x-raw,format=I420,width=64,height=64 ! \
             capssetter caps=video/x-raw,interlace-mode=interleaved ! nnvenc ! fakesink",
        ));
        let error = interlaced.errors.join("\n");
        assert!(
            error.contains("interlace") && error.contains("deinterlace"),
            "{error}"
        );
        let range = play(&launch(
            "videotestsrc num-buffers=2 ! video/x-raw,format=I420,width=64,height=64 ! \
             nnvenc min-quantizer=40 max-quantizer=20 ! fakesink",
        ));
        let error = range.errors.join("\n");
        assert!(
            error.contains("min-quantizer 40") && error.contains("20"),
            "{error}"
        );
    });
}

#[test]
fn presets_and_raw_info_are_usable() {
    // `GstPreset` keeps what users tune; it must list the properties that can be set.
    let enc = element("nnvenc", &[]);
    let preset = enc
        .dynamic_cast::<gst::Preset>()
        .expect("the encoder has presets");
    let names = preset.property_names();
    assert!(names.iter().any(|n| n == "quantizer"), "{names:?}");
    assert!(i420(64, 48).to_caps().is_ok());
}

/// One truth for sizes: what the format allows, what caps offer, what an encoder takes, what a
/// decoder takes unless told otherwise, and what README says.
#[test]
fn sizes_in_caps_readme_encoder_and_decoder_agree() {
    use nnv_bitstream::limits::{MAX_SAMPLES, MAX_SIDE};
    use nnv_bitstream::{SequenceHeader, StreamInfo};
    use nnv_codec::config::DecoderConfig;

    init();
    let raw = template("nnvenc", "sink");
    let fits = |side: u32| {
        let caps = format!("video/x-raw, format=I420, width={side}, height={side}, framerate=0/1");
        caps.parse::<gst::Caps>().unwrap().is_subset(&raw)
    };
    assert!(fits(1) && fits(MAX_SIDE) && !fits(MAX_SIDE + 1));
    assert_eq!(DecoderConfig::default().max_pixels, MAX_SAMPLES);
    let square = MAX_SAMPLES.isqrt() as u32;
    for (width, height, codes) in [
        (1, 1, true),
        (MAX_SIDE, 1, true),
        (MAX_SIDE, square * square / MAX_SIDE, true),
        (square, square, true),
        (square + 1, square, false),
        (MAX_SIDE + 1, 1, false),
    ] {
        let size = format!("{width}x{height}");
        assert_eq!(
            StreamInfo::new(width, height, 8).validate().is_ok(),
            codes,
            "{size}"
        );
        // What an encoder takes, every header can say.
        let header = SequenceHeader::new("realtime", [0; 8], width, height, 8).to_payload();
        assert!(header.is_ok() || !codes, "{size}");
    }
    let readme = include_str!("../../README.md");
    let said = format!("1×1 to {MAX_SIDE} samples a side, at most {square}×{square} in all");
    assert!(readme.contains(&said), "README does not say: {said}");
}

/// `batch-size` offers what one run of a network can take, and the encoder heeds all of it.
#[test]
fn batch_sizes_are_those_of_the_networks() {
    init();
    for element in ["nnvenc", "nnsr"] {
        let element = gst::ElementFactory::make(element).build().unwrap();
        let spec = element.find_property("batch-size").unwrap();
        let spec = spec.downcast::<glib::ParamSpecUInt>().unwrap();
        assert_eq!(spec.maximum() as usize, nnv_nn::MAX_BATCH);
    }
}
