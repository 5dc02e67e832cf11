// SPDX-License-Identifier: MPL-2.0
//! `nnv keygen` and `nnv verify`: keys for encryption and signatures, and what signatures say.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use nnv_bitstream::UnitType;
use nnv_bitstream::limits::MAX_PAYLOAD;
use nnv_crypt::CryptError;
use nnv_crypt::keys::{
    Secret, new_signing_key, parse_public_key, public_key_text, signing_key_text,
};
use nnv_crypt::sign::{Finding, Verifier};

use crate::failure::{Failure, Result};
use crate::files::check_outputs;
use crate::stream::{Depth, Piece, Stream};

/// What a key is for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Purpose {
    /// A secret for nnvencrypt and nnvdecrypt
    Encrypt,
    /// A pair for nnvsign and nnvverify: the secret in FILE, the public one in FILE.pub and on
    /// standard output
    Sign,
}

/// Makes a key from the system's random numbers
///
/// An existing file is never overwritten. Where the system has owners of files, only the owner may
/// read the secret.
#[derive(Args, Debug)]
pub struct KeygenOptions {
    /// What the key is for
    #[arg(value_enum)]
    purpose: Purpose,
    /// Where the secret goes
    file: PathBuf,
}

/// Verifies the signatures of a stream
///
/// One line for each group of pictures that was signed, and for whatever does not fit. The exit
/// code is 1 where anything was changed, is missing within or is not signed; a stream that was cut
/// at its ends is told, and is no failure.
#[derive(Args, Debug)]
pub struct VerifyOptions {
    /// The stream
    file: PathBuf,
    /// Public key of who is trusted, ed25519-public:…, or a file with it
    #[arg(short, long)]
    key: String,
}

fn create(path: &Path, text: &str, secret: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = secret;
    let mut file = options.open(path).map_err(|e| Failure::file(path, e))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .map_err(|e| Failure::file(path, e))
}

/// `nnv keygen`.
pub fn keygen(options: &KeygenOptions) -> Result<()> {
    let path = &options.file;
    check_outputs([], [&**path])?;
    match options.purpose {
        Purpose::Encrypt => create(path, &Secret::random()?.to_hex(), true),
        Purpose::Sign => {
            let key = new_signing_key()?;
            let public = public_key_text(&key.verifying_key());
            let mut name = path.clone().into_os_string();
            name.push(".pub");
            create(path, &signing_key_text(&key), true)?;
            create(Path::new(&name), &public, false)?;
            println!("{public}");
            Ok(())
        }
    }
}

/// Signatures are inside the encryption.
fn encrypted(path: &Path) -> Failure {
    Failure::file(
        path,
        format!(
            "the stream is encrypted: put nnvdecrypt, with its key, in front: gst-launch-1.0 \
             filesrc location={path:?} ! nnvparse ! nnvdecrypt key-file=KEY ! filesink \
             location=plain.nnv, then verify that"
        ),
    )
}

/// `nnv verify`.
pub fn verify(options: &VerifyOptions) -> Result<()> {
    let path = &options.file;
    let text = match options.key.strip_prefix("ed25519-") {
        Some(_) => options.key.clone(),
        None => std::fs::read_to_string(&options.key)
            .map_err(|e| Failure::file(Path::new(&options.key), e))?,
    };
    let key = parse_public_key(&text).map_err(|e| Failure::Usage(format!("--key: {e}")))?;
    let mut verifier = Verifier::new(key);
    let mut stream = Stream::open(path, Depth::All)?;
    let (mut unit, mut verified, mut bad) = (Vec::new(), 0u64, 0u64);
    let mut tell = |finding: &Finding| {
        println!("{}: {finding}", finding.name());
        verified += u64::from(finding.is_good());
        bad += u64::from(finding.is_bad());
    };
    while let Some(piece) = stream.next()? {
        match piece {
            Piece::Damage { offset, len, what } => {
                println!("damaged: {len} bytes at {offset}: {what}");
                unit.clear();
            }
            Piece::Unit(at) => {
                // Fillers are not signed, and may be many.
                if at.kind == UnitType::Filler {
                    continue;
                }
                unit.extend(stream.bytes_of(at.offset, at.len)?);
                if unit.len() > 2 * MAX_PAYLOAD {
                    let what = format!("{} bytes without a frame up to {}", unit.len(), at.offset);
                    return Err(Failure::file(path, what));
                }
                if at.kind.is_frame() {
                    let found = verifier.push(&unit).map_err(|e| match e {
                        CryptError::Encrypted => encrypted(path),
                        e => Failure::file(path, e),
                    });
                    found?.iter().for_each(&mut tell);
                    unit.clear();
                }
            }
        }
    }
    verifier.finish().iter().for_each(&mut tell);
    if bad > 0 || verified == 0 {
        return Err(Failure::file(path, "it is not as it was signed"));
    }
    Ok(())
}
