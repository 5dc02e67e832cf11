// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::prelude::*;
use nnv_bitstream::BitstreamError;
use nnv_crypt::CryptError;
use nnv_crypt::encrypt::Encryptor;
use nnv_crypt::keys::Secret;

use super::Keys;
use crate::common::{self, lock};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "nnvencrypt",
        gst::DebugColorFlags::empty(),
        Some("NNV encryption"),
    )
});

#[derive(Clone, Debug, Default)]
struct Settings {
    keys: Keys,
    key_id: u64,
    rotation: u32,
    /// What is set is not in use yet.
    changed: bool,
}

#[derive(Default)]
pub struct NnvEncrypt {
    settings: Mutex<Settings>,
    encryptor: Mutex<Option<Encryptor>>,
}

#[glib::object_subclass]
impl ObjectSubclass for NnvEncrypt {
    const NAME: &'static str = "GstNnvEncrypt";
    type Type = super::NnvEncrypt;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for NnvEncrypt {
    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(Keys::signals);
        &SIGNALS
    }

    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let mut specs = Keys::properties();
            specs.push(
                glib::ParamSpecUInt64::builder("key-id")
                    .nick("Number of the key")
                    .blurb(
                        "Which key of key-file or of request-key to encrypt with; a change holds \
                         from the next key frame on",
                    )
                    .mutable_playing()
                    .build(),
            );
            specs.push(
                glib::ParamSpecUInt::builder("rotation")
                    .nick("Rotation")
                    .blurb(
                        "Key frames after which the key that is derived from the secret changes \
                         (0: with the secret only)",
                    )
                    .mutable_playing()
                    .build(),
            );
            specs
        });
        &PROPERTIES
    }

    fn set_property(&self, id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut guard = lock(&self.settings);
        guard.changed = true;
        if guard.keys.set(value, pspec) {
            return;
        }
        match pspec.name() {
            "key-id" => guard.key_id = value.get().expect("type checked upstream"),
            "rotation" => guard.rotation = value.get().expect("type checked upstream"),
            name => unreachable!("property {name} (id {id}) is not one of nnvencrypt"),
        }
    }

    fn property(&self, id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let s = lock(&self.settings);
        match pspec.name() {
            "key-file" => s.keys.file.to_value(),
            "key-id" => s.key_id.to_value(),
            "rotation" => s.rotation.to_value(),
            name => unreachable!("property {name} (id {id}) is not one of nnvencrypt"),
        }
    }
}

impl GstObjectImpl for NnvEncrypt {}

impl ElementImpl for NnvEncrypt {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            common::metadata(
                "NNV encryption",
                "Filter/Encryptor/Video",
                "Encrypts NNV video behind the encoder; headers stay readable, so that it can be \
                 muxed, sent, cut and sought in",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| common::templates(&common::parsed_caps(), &common::parsed_caps()));
        &TEMPLATES
    }
}

impl BaseTransformImpl for NnvEncrypt {
    const MODE: gst_base::subclass::BaseTransformMode =
        gst_base::subclass::BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let refuse = |what: String| gst::error_msg!(gst::ResourceError::Settings, ("{what}"));
        let (number, secret) = self.key().map_err(refuse)?;
        let rotation = lock(&self.settings).rotation;
        let encryptor = Encryptor::new(number, secret, rotation).map_err(|e| refuse(e.to_string()));
        *lock(&self.encryptor) = Some(encryptor?);
        lock(&self.settings).changed = false;
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.encryptor) = None;
        Ok(())
    }

    fn transform_ip(
        &self,
        buffer: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        self.take_changes()?;
        let result = {
            let map = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
            let mut encryptor = lock(&self.encryptor);
            let encryptor = encryptor.as_mut().ok_or(gst::FlowError::Flushing)?;
            encryptor.encrypt(&map)
        };
        match result {
            Ok(sealed) => {
                common::replace(buffer, sealed);
                Ok(gst::FlowSuccess::Ok)
            }
            // What follows means something else, which nobody here knows.
            Err(CryptError::Bitstream(
                e @ (BitstreamError::Critical(_) | BitstreamError::Extension(_)),
            )) => {
                gst::element_imp_error!(self, gst::StreamError::Format, ("{e}"));
                Err(gst::FlowError::Error)
            }
            // Nothing leaves unencrypted; one bad access unit ends no live stream.
            Err(
                e @ (CryptError::Bitstream(_) | CryptError::NoKeyFrame | CryptError::TooLong(_)),
            ) => {
                gst::element_imp_warning!(
                    self,
                    gst::StreamError::Failed,
                    ("An access unit is left out: {e}")
                );
                Ok(gst_base::BASE_TRANSFORM_FLOW_DROPPED)
            }
            Err(e) => {
                gst::element_imp_error!(self, gst::StreamError::Failed, ("{e}"));
                Err(gst::FlowError::Error)
            }
        }
    }
}

impl NnvEncrypt {
    /// The secret to encrypt with, and its number.
    fn key(&self) -> Result<(u64, Secret), String> {
        let settings = lock(&self.settings).clone();
        let number = match &settings.keys.key {
            Some(Ok((Some(number), _))) => *number,
            _ => settings.key_id,
        };
        let secret = settings.keys.find(number, self.obj().upcast_ref())?;
        let secret = secret.ok_or_else(|| CryptError::NoKey(number).to_string())?;
        Ok((number, secret))
    }

    /// Takes over what was set meanwhile.
    fn take_changes(&self) -> Result<(), gst::FlowError> {
        if !std::mem::take(&mut lock(&self.settings).changed) {
            return Ok(());
        }
        let (number, secret) = self.key().map_err(|what| {
            gst::element_imp_error!(self, gst::ResourceError::Settings, ("{what}"));
            gst::FlowError::Error
        })?;
        gst::info!(CAT, imp = self, "Key {number} from the next key frame on");
        let rotation = lock(&self.settings).rotation;
        if let Some(encryptor) = lock(&self.encryptor).as_mut() {
            encryptor.set_key(number, secret);
            encryptor.set_rotation(rotation);
        }
        Ok(())
    }
}
