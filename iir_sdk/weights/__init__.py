"""How weights travel: the manifest that names them, the Hub, their verification, saving and publishing."""
