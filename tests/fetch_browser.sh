#!/bin/sh
# A Chromium without a window, for the tests of pages, into .browser/: 68 MB from npm's registry, 192 MB on the disk.
# Linux on x86-64, with npm and node. What it needs beside the C library comes with it.
set -e
cd "$(dirname "$0")/.."
mkdir -p .browser && cd .browser
npm pack --silent @sparticuz/chromium@147.0.0 > file
echo "18fe5404ce845594cd7d592fc07f37a19514079ba4d9c27192ad8b908743f16b  $(cat file)" | sha256sum --check --quiet
tar xf "$(cat file)"
for part in chromium al2023.tar fonts.tar; do
  node -e "const {readFileSync, writeFileSync} = require('fs');
    writeFileSync('run-$part', require('zlib').brotliDecompressSync(readFileSync('package/bin/$part.br')))"
done
tar xf run-al2023.tar && tar xf run-fonts.tar
chmod +x run-chromium
echo "<fontconfig><dir prefix='relative'>fonts</dir><cachedir prefix='xdg'>fontconfig</cachedir></fontconfig>" > fonts.conf
cat > chromium << 'END'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH="$here/lib" FONTCONFIG_FILE="$here/fonts.conf"
exec "$here/run-chromium" "$@"
END
chmod +x chromium
rm -r package run-*.tar file ./*.tgz
