//! What a text of a manifest is meant to be, as its schema says it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::domain::{
    ClassId, ControlId, Digest, DomainId, ExceptionId, Facet, GroupId, Invalid, Pattern, Principal,
    Span, SubjectId, Timestamp,
};

use super::{control::name, people::member};

macro_rules! formats {
    ($($format:ident = $said:literal, $parse:expr;)*) => {
        $(
            pub(super) struct $format;

            impl JsonSchema for $format {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($format).into()
                }

                fn inline_schema() -> bool {
                    true
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!({"type": "string", "format": $said})
                }
            }
        )*

        /// What is wrong with a text that is meant to be of a format.
        pub(super) fn wrong(format: &str, text: &str) -> Option<Invalid> {
            match format {
                $($said => $parse(text).err(),)*
                _ => None,
            }
        }
    };
}

formats! {
    AControl = "exeat-control-id", ControlId::parse;
    ASubject = "exeat-subject-id", SubjectId::parse;
    AClass = "exeat-class-id", ClassId::parse;
    AnException = "exeat-exception-id", ExceptionId::parse;
    ADomain = "exeat-domain-id", DomainId::parse;
    AGroup = "exeat-group-id", GroupId::parse;
    APrincipal = "exeat-principal", Principal::parse;
    APerson = "exeat-person", Principal::parse_human;
    AMember = "exeat-member", member;
    ADigest = "exeat-digest", Digest::parse;
    APattern = "exeat-pattern", Pattern::parse;
    AFacet = "exeat-facet", Facet::parse;
    ABoundFacet = "exeat-bound-facet", Facet::parse_bindable;
    ATime = "exeat-time", Timestamp::parse;
    ASpan = "exeat-duration", Span::parse;
    AName = "exeat-name", name;
}
