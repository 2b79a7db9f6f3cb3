from ._pycodec import Decoder as Decoder
from ._pycodec import apply_mask as apply_mask
from ._pycodec import encode_frame as encode_frame
