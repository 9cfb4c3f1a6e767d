# Sourced by scripts that download. Makes uv and npm use the package registries as this machine is configured for them.
# uv reads none of pip's settings: where a machine's registry is configured for pip only, hand it on, at run time only.

export_from_pip() { # VARIABLE SETTING: pip's own order is environment, then the section of `install`, then `global`
  local section value
  [ -z "${!1:-}" ] || return 0
  for section in ':env:' install global; do
    value=$(sed -n "s/^$section\.$2='\(.*\)'\$/\1/p" <<<"$pip_settings")
    if [ -n "$value" ]; then
      export "$1=$value"
      return
    fi
  done
}

pip_settings=$("${python:-python3}" -m pip config list 2>/dev/null || .tools/bin/python -m pip config list 2>/dev/null || true)
export_from_pip UV_DEFAULT_INDEX index-url
export_from_pip UV_INSECURE_HOST trusted-host
export_from_pip SSL_CERT_FILE cert
# Certificates that the machine trusts count, as they do for pip.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-1}" NODE_USE_SYSTEM_CA="${NODE_USE_SYSTEM_CA:-1}"
