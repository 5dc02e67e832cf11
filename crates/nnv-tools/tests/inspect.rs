// SPDX-License-Identifier: MPL-2.0
//! `nnv inspect`: what the page says, and how it behaves in a browser.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn conformance(name: &str) -> String {
    let path = root().join(format!("tests/conformance/{name}.nnv"));
    path.to_str().unwrap().to_owned()
}

/// A file that goes when dropped.
struct Page(PathBuf);

impl Page {
    fn new(name: &str) -> Self {
        let name = format!("nnv-inspect-{}-{name}.html", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn data(&self) -> Value {
        let page = std::fs::read_to_string(&self.0).unwrap();
        let (_, rest) = page
            .split_once(r#"<script type="application/json" id="data">"#)
            .unwrap();
        serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs `nnv inspect`; gives what it says on standard error.
fn inspect(code: i32, page: &Page, arguments: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_nnv"))
        .args(["inspect", "-o"])
        .arg(&page.0)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!err.contains("panicked"), "{err}");
    assert_eq!(out.status.code(), Some(code), "{arguments:?}: {err}");
    err
}

#[test]
fn the_page_tells_where_every_byte_went() {
    let page = Page::new("bytes");
    let stream = conformance("hierarchical-b");
    let same = ["--original", &stream, "--bitrate", "300", "--buffer", "500"];
    inspect(0, &page, &[&[stream.as_str()][..], &same].concat());
    let data = page.data();
    let frames = data["frames"].as_array().unwrap();
    assert!(frames.len() > 8);
    let bytes = |f: &Value| f["bytes"].as_u64().unwrap();
    let sum: u64 = frames.iter().map(bytes).sum();
    let size = std::fs::metadata(&stream).unwrap().len();
    assert_eq!(sum, size, "every byte is a frame's");
    assert_eq!(data["bytes"].as_u64(), Some(size));
    let mut order: Vec<u64> = frames
        .iter()
        .map(|f| f["order"].as_u64().unwrap())
        .collect();
    assert!(!order.is_sorted(), "B frames are decoded in another order");
    order.sort_unstable();
    assert!(order.into_iter().eq(0..frames.len() as u64));
    let mut both = 0;
    for (i, f) in frames.iter().enumerate() {
        let parts = f["parts"].as_array().unwrap().iter();
        let parts: Vec<u64> = parts.map(|v| v.as_u64().unwrap()).collect();
        assert_eq!(parts.iter().sum::<u64>(), bytes(f), "frame {i}");
        let references = f["references"].as_array().unwrap();
        both += usize::from(references.len() == 2);
        for r in references {
            let r = &frames[r.as_u64().unwrap() as usize];
            assert!(r["order"].as_u64() < f["order"].as_u64(), "frame {i}");
        }
        match f["kind"].as_str().unwrap() {
            "repeat" => continue,
            kind => assert_eq!(references.is_empty(), kind == "key", "frame {i}"),
        }
        let bands = f["bands"].as_array().unwrap().iter();
        let latent = bands.map(|v| v.as_u64().unwrap()).sum::<u64>() / 8;
        assert!(
            latent.abs_diff(parts[5]) <= 30 + parts[5] / 60,
            "frame {i}: {latent}"
        );
        // The original is the stream itself.
        assert_eq!(f["psnr"][0].as_f64(), Some(100.0), "frame {i}");
        let shown = &data["pictures"][i.to_string()];
        assert!(
            shown["picture"].as_str().unwrap().starts_with("/9j/"),
            "JPEG"
        );
        assert_eq!(shown["prediction"].is_string(), f["kind"] == "inter");
        assert_eq!(
            shown["layout"]["columns"].as_u64() > Some(0),
            f["kind"] == "inter"
        );
    }
    assert!(both > 0);
    // Fullness falls by each frame's bits: the first has only the start to take from.
    let first = frames.iter().find(|f| f["order"] == 0).unwrap();
    let expected = 0.9 - 8.0 * bytes(first) as f64 / 150_000.0;
    let fullness = data["buffer"]["fullness"].as_array().unwrap();
    assert!((fullness[0].as_f64().unwrap() - expected).abs() < 1e-9);
    assert_eq!(fullness.len(), frames.len());
}

#[test]
fn frames_can_be_chosen() {
    let page = Page::new("chosen");
    inspect(0, &page, &[&conformance("low-delay"), "--frames", "1,3-4"]);
    let data = page.data();
    let mut pictures: Vec<_> = data["pictures"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    pictures.sort();
    assert_eq!(pictures, ["1", "3", "4"]);
    assert!(data["frames"].as_array().unwrap().len() > 4);
    assert!(data["buffer"].is_null() && data["frames"][1]["psnr"].is_null());
}

#[test]
fn ink_and_maps_are_there() {
    let page = Page::new("ink");
    for (name, part, layout) in [("ink", 2, "ink"), ("visual", 1, "map")] {
        inspect(0, &page, &[&conformance(name)]);
        let data = page.data();
        let frames = data["frames"].as_array().unwrap().iter().enumerate();
        let with: Vec<usize> = frames
            .filter(|(_, f)| f["parts"][part].as_u64() > Some(0))
            .map(|(i, _)| i)
            .collect();
        assert!(!with.is_empty(), "{name}");
        for i in with {
            assert_eq!(
                data["pictures"][i.to_string()]["layout"][layout],
                true,
                "{name} {i}"
            );
        }
    }
}

#[test]
fn bad_input_gets_one_line() {
    let page = Page::new("bad");
    let stream = conformance("low-delay");
    let cases: [(i32, Vec<&str>, &str); 6] = [
        (1, vec!["/nowhere.nnv"], "No such file"),
        (2, vec![&stream, "--frames", "5-2"], "is no range of frames"),
        (2, vec![&stream, "--frames", "9999"], "names frame 9999"),
        (2, vec![&stream, "--buffer", "300"], "--bitrate"),
        (
            1,
            vec![&stream, "--original", "/nowhere.y4m"],
            "No such file",
        ),
        (1, vec!["/etc/hostname"], "not an NNV stream"),
    ];
    for (code, arguments, says) in cases {
        let err = inspect(code, &page, &arguments);
        assert!(err.contains(says), "{arguments:?}: {err}");
        if code == 1 {
            assert_eq!(err.lines().count(), 1, "{err}");
        }
    }
    let unwritable = Page("/nowhere/page.html".into());
    assert!(inspect(1, &unwritable, &[&stream]).contains("/nowhere/page.html"));
    assert!(!page.0.exists(), "nothing is left of a failure");
}

/// What a browser test needs, or what is missing.
fn browser() -> Result<(PathBuf, PathBuf), &'static str> {
    let chromium = std::env::var_os("CHROMIUM").unwrap_or_else(|| "/usr/bin/chromium".into());
    let chromium = PathBuf::from(chromium);
    let playwright = root().join(".deps/browser/node_modules/playwright-core");
    let node = Command::new("node").arg("--version").output();
    if !chromium.exists() {
        Err("Chromium (apt-get install chromium)")
    } else if !node.is_ok_and(|out| out.status.success()) {
        Err("Node.js (apt-get install nodejs)")
    } else if !playwright.is_dir() {
        Err("playwright-core (scripts/browser-deps.sh)")
    } else {
        Ok((chromium, playwright))
    }
}

#[test]
fn a_click_on_a_frame_shows_its_motion_field_in_a_browser() {
    let (chromium, playwright) = match browser() {
        Ok(found) => found,
        Err(missing) => {
            eprintln!("\n!! SKIPPED: the page was not tried in a browser: no {missing}\n");
            return;
        }
    };
    let page = Page::new("browser");
    let stream = conformance("hierarchical-b");
    inspect(
        0,
        &page,
        &[&stream, "--original", &stream, "--bitrate", "400"],
    );
    let mut command = Command::new("node");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/inspect.mjs"))
        .arg(&page.0)
        .env("PLAYWRIGHT", playwright)
        .env("CHROMIUM", chromium);
    if let Some(folder) = std::env::var_os("NNV_SCREENSHOTS") {
        command.arg(folder);
    }
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}{err}");
    assert!(said.contains(r#""looked":4"#), "{said}");
}

#[test]
fn the_atlas_shows_every_channel_and_where_the_bits_are() {
    let page = Page::new("atlas");
    let out = Command::new(env!("CARGO_BIN_EXE_nnv"))
        .args(["model", "realtime", "--frames", "2", "--atlas"])
        .arg(&page.0)
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{err}");
    let said = String::from_utf8_lossy(&out.stdout);
    for set in ["key frames", "inter frames"] {
        let line = said.lines().find(|line| line.contains(set)).unwrap();
        let (live, _) = line
            .split_once(": ")
            .unwrap()
            .1
            .split_once(" of 384")
            .unwrap();
        assert!((20..=384).contains(&live.parse::<u32>().unwrap()), "{line}");
    }
    let html = std::fs::read_to_string(&page.0).unwrap();
    let sections: Vec<&str> = html.split("<section>").skip(1).collect();
    assert_eq!(sections.len(), 2);
    for section in sections {
        let tiles: Vec<&str> = section.split("<li").skip(1).collect();
        assert_eq!(tiles.len(), 384);
        // Shares of each quantizer add up to all, but for rounding to a tenth.
        let mut sums = [0.0; 3];
        for tile in tiles {
            let shares = tile
                .split_once("</li>")
                .unwrap()
                .0
                .rsplit("<br>")
                .next()
                .unwrap();
            for (sum, share) in sums.iter_mut().zip(shares.split(' ')) {
                *sum += share.parse::<f64>().unwrap();
            }
        }
        assert!(sums.iter().all(|s| (s - 100.0).abs() < 15.0), "{sums:?}");
    }
    let page = Page::new("none");
    for bad in [vec!["model", "--atlas"], vec!["model", "nobody", "--atlas"]] {
        let out = Command::new(env!("CARGO_BIN_EXE_nnv"))
            .args(&bad)
            .arg(&page.0)
            .output();
        assert!(!out.unwrap().status.success(), "{bad:?}");
    }
}
