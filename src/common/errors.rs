// SPDX-License-Identifier: MPL-2.0
//! What errors become on the bus.

use nnv_codec::error::CodecError;
use nnv_nn::NnError;
use nnv_quality::VmafError;

/// What an error becomes on the bus. `coding` is the error of the stream itself.
pub fn error_message(error: &CodecError, coding: gst::StreamError) -> gst::ErrorMessage {
    let text = error.to_string();
    match error {
        CodecError::Nn(NnError::Runtime { .. }) => {
            gst::error_msg!(gst::LibraryError::Init, ("{text}"))
        }
        CodecError::Nn(NnError::UnknownModel { .. })
        | CodecError::Model { .. }
        | CodecError::Vmaf(VmafError::Missing(_)) => {
            gst::error_msg!(gst::ResourceError::NotFound, ("{text}"))
        }
        CodecError::Nn(NnError::Bundle { .. }) => {
            gst::error_msg!(gst::ResourceError::OpenRead, ("{text}"))
        }
        CodecError::Nn(NnError::Provider { .. } | NnError::KnownAnswer { .. }) => {
            gst::error_msg!(gst::LibraryError::Settings, ("{text}"))
        }
        CodecError::Config(_) => gst::error_msg!(gst::LibraryError::Settings, ("{text}")),
        _ => match coding {
            gst::StreamError::Encode => gst::error_msg!(gst::StreamError::Encode, ("{text}")),
            gst::StreamError::Failed => gst::error_msg!(gst::StreamError::Failed, ("{text}")),
            _ => gst::error_msg!(gst::StreamError::Decode, ("{text}")),
        },
    }
}
