// SPDX-License-Identifier: MPL-2.0
//! `nnv keygen` and `nnv verify` as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nnv_bitstream::{AccessUnitScan, AccessUnitScanner};
use nnv_crypt::encrypt::Encryptor;
use nnv_crypt::keys::{KeyRing, parse_signing_key};
use nnv_crypt::sign::{Last, Signer};

/// A folder of its own that goes when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("nnv-keys-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs the program; `code` is what it has to exit with. What it printed.
fn nnv(code: i32, arguments: &[&str]) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_nnv"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&stdout), text(&stderr));
    assert_eq!(status.code(), Some(code), "{arguments:?}: {out}{err}");
    out + &err
}

fn access_units(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance");
    let data = std::fs::read(path.join(name)).unwrap();
    let (mut scanner, mut at, mut units) = (AccessUnitScanner::default(), 0, Vec::new());
    while let AccessUnitScan::Unit(unit) = scanner.scan(at as u64, &data[at..], true) {
        units.push(data[at..at + unit.len].to_vec());
        at += unit.len;
    }
    units
}

#[test]
fn keys_are_made_and_signatures_verified() {
    let folder = Folder::new();
    let (secret, key) = (folder.path("secret.key"), folder.path("sign.key"));
    nnv(0, &["keygen", "encrypt", &secret]);
    assert!(KeyRing::parse(&std::fs::read_to_string(&secret).unwrap()).is_ok());
    let public = nnv(0, &["keygen", "sign", &key]);
    let file = format!("{key}.pub");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), public);
    let text = std::fs::read_to_string(&key).unwrap();
    // Nothing is overwritten, and nobody else may read it.
    assert!(nnv(1, &["keygen", "sign", &key]).contains("sign.key"));
    assert_eq!(std::fs::read_to_string(&key).unwrap(), text);
    #[cfg(unix)]
    for secret in [&key, &secret] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(secret).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{secret}: {mode:o}");
    }

    let mut signer = Signer::new(parse_signing_key(&text).unwrap(), 3).unwrap();
    let units = access_units("low-delay.nnv");
    let mut signed = Vec::new();
    for (i, unit) in units.iter().enumerate() {
        let last = match units.get(i + 1) {
            None => Last::OfStream { time: None },
            Some(next) if signer.ends_before(next).unwrap() => Last::OfGroup { time: None },
            Some(_) => Last::No,
        };
        signed.push(signer.push(unit, last).unwrap());
    }
    let stream = folder.path("signed.nnv");
    let write = |units: &[Vec<u8>]| std::fs::write(&stream, units.concat()).unwrap();
    write(&signed);
    for key in [&file, public.trim()] {
        let told = nnv(0, &["verify", &stream, "--key", key]);
        assert!(
            told.lines().all(|line| line.starts_with("verified: ")),
            "{told}"
        );
    }
    // What knows nothing of signatures passes over them.
    nnv(0, &["info", &stream]);
    let lost = [&signed[..1], &signed[2..]].concat();
    write(&lost);
    assert!(nnv(1, &["verify", &stream, "--key", &file]).contains("tampered: "));
    write(&units);
    assert!(nnv(1, &["verify", &stream, "--key", &file]).contains("unsigned: "));
    assert!(nnv(2, &["verify", &stream, "--key", "ed25519-public:00"]).contains("64 hex"));

    // Signatures are inside the encryption: what takes that off is named.
    let (_, secret) = KeyRing::parse_one(&std::fs::read_to_string(&secret).unwrap()).unwrap();
    let mut encryptor = Encryptor::new(0, secret, 0).unwrap();
    let encrypted = signed.iter().map(|unit| encryptor.encrypt(unit).unwrap());
    write(&encrypted.collect::<Vec<_>>());
    let told = nnv(1, &["verify", &stream, "--key", &file]);
    assert!(
        told.contains("the stream is encrypted: put nnvdecrypt, with its key, in front"),
        "{told}"
    );
    assert!(told.contains("nnvdecrypt key-file=KEY"), "{told}");
}
