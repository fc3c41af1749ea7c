#!/usr/bin/env bash
# Installs one Debian package where that is allowed; says what to do where it is not.
set -eu
package=$1
sudo=()
if [ "$(id -u)" -ne 0 ]; then sudo=(sudo -n); fi
if command -v apt-get > /dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2> /dev/null; }; then
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq "$package" > /dev/null
else
  echo "$package is needed and cannot be installed from here: install it with your system's package manager" >&2
  exit 1
fi
