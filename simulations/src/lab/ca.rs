//! The lab's certificate authority: P-256 throughout, because fifty new RSA connections a second fill two cores.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};

/// Names that every apiserver certificate of a Kubernetes cluster covers.
const SERVER_NAMES: [&str; 4] = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A certificate authority whose files live in one directory.
#[derive(Debug)]
pub struct Ca {
    dir: PathBuf,
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    /// Makes a CA and writes its certificate to `DIR/NAME.crt`.
    pub fn create(dir: &Path, name: &str) -> Result<Ca> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let ca = Ca { dir: dir.to_owned(), name: name.to_owned(), issuer };
        write(&ca.certificate(), &ca.issuer.pem())?;
        Ok(ca)
    }

    /// The CA's certificate, PEM.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join(format!("{}.crt", self.name))
    }

    /// A certificate for an apiserver at these addresses.
    pub fn server(&self, name: &str, addrs: &[IpAddr]) -> Result<Pair> {
        self.issue(name, &server_params(name, addrs)?)
    }

    /// The same, valid in this time only.
    pub fn server_within(&self, name: &str, addrs: &[IpAddr], from: SystemTime, to: SystemTime) -> Result<Pair> {
        let mut params = server_params(name, addrs)?;
        (params.not_before, params.not_after) = (from.into(), to.into());
        self.issue(name, &params)
    }

    /// The same, out of its validity since the start of 2020.
    pub fn expired_server(&self, name: &str, addrs: &[IpAddr]) -> Result<Pair> {
        let start = |year| SystemTime::from(rcgen::date_time_ymd(year, 1, 1));
        self.server_within(name, addrs, start(2019), start(2020))
    }

    /// A client certificate. In Kubernetes the common name is the user and the organisation a group.
    pub fn client(&self, name: &str, group: &str) -> Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, &params)
    }

    fn issue(&self, name: &str, params: &CertificateParams) -> Result<Pair> {
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        let stem = format!("{}-{name}", self.name);
        let pair = Pair { cert: self.dir.join(format!("{stem}.crt")), key: self.dir.join(format!("{stem}.key")) };
        write(&pair.cert, &cert.pem())?;
        write(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }
}

fn server_params(name: &str, addrs: &[IpAddr]) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(SERVER_NAMES.map(str::to_owned))?;
    params.subject_alt_names.extend(addrs.iter().map(|addr| SanType::IpAddress(*addr)));
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::from([127, 0, 0, 1])));
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
