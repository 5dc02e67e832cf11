// SPDX-License-Identifier: MPL-2.0
//! `nnvencrypt` and `nnvdecrypt`: SFrame over access units. The bytes are made in `nnv_crypt`;
//! `docs/privacy.md` describes them.

mod decrypt;
mod encrypt;

use gst::glib;
use gst::prelude::*;
use nnv_crypt::keys::{KeyError, KeyRing, Secret};

glib::wrapper! {
    /// Filter element, a `GstBaseTransform`.
    pub struct NnvEncrypt(ObjectSubclass<encrypt::NnvEncrypt>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

glib::wrapper! {
    /// Filter element, a `GstBaseTransform`.
    pub struct NnvDecrypt(ObjectSubclass<decrypt::NnvDecrypt>)
        @extends gst_base::BaseTransform, gst::Element, gst::Object;
}

/// Registers both.
///
/// # Errors
/// Where GStreamer refuses one of them.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    let (encrypt, decrypt) = (NnvEncrypt::static_type(), NnvDecrypt::static_type());
    gst::Element::register(Some(plugin), "nnvencrypt", gst::Rank::NONE, encrypt)?;
    gst::Element::register(Some(plugin), "nnvdecrypt", gst::Rank::NONE, decrypt)
}

/// Signal that asks the application for a secret.
const REQUEST_KEY: &str = "request-key";

/// Where secrets come from.
#[derive(Clone, Debug, Default)]
struct Keys {
    /// What `key` was set to.
    key: Option<Result<(Option<u64>, Secret), KeyError>>,
    file: Option<String>,
}

impl Keys {
    fn properties() -> Vec<glib::ParamSpec> {
        vec![
            glib::ParamSpecString::builder("key")
                .nick("Key")
                .blurb(
                    "Secret of 16 to 64 bytes in hex, with its number and a colon before it where \
                     there are several (7:0123…)",
                )
                .write_only()
                .mutable_playing()
                .build(),
            glib::ParamSpecString::builder("key-file")
                .nick("File of keys")
                .blurb(
                    "File with a key in each line, as for key; it is read again whenever a key is \
                     needed (unset: none)",
                )
                .mutable_playing()
                .build(),
        ]
    }

    /// Takes over a value where the property is one of these.
    fn set(&mut self, value: &glib::Value, pspec: &glib::ParamSpec) -> bool {
        let text = || {
            value
                .get::<Option<String>>()
                .expect("type checked upstream")
        };
        match pspec.name() {
            "key" => self.key = text().map(|text| KeyRing::parse_one(&text)),
            "key-file" => self.file = text(),
            _ => return false,
        }
        true
    }

    /// The signals of an element: a signal belongs to one type, so each makes its own.
    fn signals() -> Vec<glib::subclass::Signal> {
        vec![
            glib::subclass::Signal::builder(REQUEST_KEY)
                .param_types([u64::static_type()])
                .return_type::<Option<glib::Bytes>>()
                .run_last()
                .build(),
        ]
    }

    /// The secret of a number: the property's, the file's, the application's.
    ///
    /// # Errors
    /// What is wrong with a key that is there.
    fn find(&self, number: u64, element: &gst::Element) -> Result<Option<Secret>, String> {
        match &self.key {
            Some(Err(e)) => return Err(format!("key: {e}")),
            Some(Ok((known, secret))) if known.is_none_or(|known| known == number) => {
                return Ok(Some(secret.clone()));
            }
            _ => {}
        }
        if let Some(path) = &self.file {
            let text = std::fs::read_to_string(path)
                .map(zeroize::Zeroizing::new)
                .map_err(|e| format!("key-file {path}: {e}"))?;
            let ring = KeyRing::parse(&text).map_err(|e| format!("key-file {path}: {e}"))?;
            if let Some(secret) = ring.get(number) {
                return Ok(Some(secret.clone()));
            }
        }
        let answer = element.emit_by_name::<Option<glib::Bytes>>(REQUEST_KEY, &[&number]);
        let secret = answer.map(|bytes| Secret::new(&bytes));
        secret
            .transpose()
            .map_err(|e| format!("the answer to request-key: {e}"))
    }
}
